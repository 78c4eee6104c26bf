"""Curves over epochs: whole epochs, marks where they are few, and no outlier that flattens the rest."""

from typing import Any

import numpy as np
import pytest

from repvgg.base.drawing import FEW, HATCH, PALE, STRONG, draw_epochs


def _axes() -> Any:
    from matplotlib.figure import Figure

    return Figure().add_subplot()


@pytest.mark.parametrize("epochs", [1, 2, 3, 5, FEW, 40, 300])
def test_ticks_are_whole_epochs(epochs: int) -> None:
    axes = _axes()
    draw_epochs(axes, {"training": np.linspace(2, 1, epochs), "validation": np.linspace(3, 1, epochs)})
    ticks = [tick for tick in axes.get_xticks() if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)
    marks = {line.get_marker() for line in axes.lines}
    assert marks == ({"o"} if epochs <= FEW else {"None"})


def test_an_early_outlier_is_cut_off_and_told() -> None:
    axes = _axes()
    loss = [1.5, 47.3, *np.linspace(1.4, 0.3, 20)]
    draw_epochs(axes, {"training": np.linspace(1.6, 0.2, 22), "validation": loss}, cut=True)
    low, high = axes.get_ylim()
    assert low < 0.2
    assert 1.6 < high < 2
    assert [text.get_text() for text in axes.texts] == ["up to 47.3 in epoch 2"]


@pytest.mark.parametrize(
    "loss",
    [
        # What falls steeply from its beginning is not an outlier; neither are few values, nor what is not finite.
        [2.3, 1.1, 0.7, 0.5, 0.4, 0.35, 0.3],
        [9.0, 1.0, 0.9],
        [2.0, np.nan, 1.5, 1.2, 1.0, 0.9],
    ],
)
def test_ordinary_curves_are_whole(loss: list[float]) -> None:
    axes = _axes()
    draw_epochs(axes, {"training": loss, "validation": loss}, cut=True)
    assert axes.get_ylim()[1] >= np.nanmax(loss)
    assert not axes.texts


def test_colours_differ_in_lightness() -> None:
    """WCAG asks for a contrast of 3 between parts of a graphic that have to be told apart."""
    from matplotlib.colors import to_rgb

    def luminance(colour: str) -> float:
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    assert (luminance(PALE) + 0.05) / (luminance(STRONG) + 0.05) > 3
    assert HATCH
