"""What pictures have in common: colours that differ in lightness as well, and curves over epochs."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

STRONG, PALE, WARNING, DARK = "#1f6f8b", "#c4c4c4", "#c8442f", "#444444"
"""Told apart without their hues too, as in print or by colour-blind readers; PALE goes with HATCH in bars."""

HATCH: Final = "////"

FEW: Final = 12
"""Epochs up to which each has a mark, as a line alone does not show where they are."""

FLATTENED: Final = 3
"""An outlier is cut off where it would stretch the axis to more than so many times the range of the rest."""


def draw_epochs(axes: Any, series: Mapping[str, Sequence[float]], first: int = 1, *, cut: bool = False) -> None:
    """Curves over epochs with a legend: the first one pale and dashed, the second one strong.

    Args:
        series: by its name in the legend, a value for each epoch.
        first: number of the first epoch.
        cut: end the axis above the rest where a curve's largest value would flatten everything else, as the loss of an
            early epoch may; it is then told beside the edge.
    """
    from matplotlib.ticker import MaxNLocator

    count = max(len(values) for values in series.values())
    epochs = np.arange(first, first + count)
    styles = ({"color": "#8a8a8a", "linestyle": "--", "linewidth": 1.3}, {"color": STRONG, "linewidth": 2})
    for (name, values), style in zip(series.items(), styles, strict=False):
        marked: dict[str, Any] = {"marker": "o", "markersize": 4} if count <= FEW else {}
        axes.plot(epochs[: len(values)], values, label=name, **style, **marked)
    axes.set_xlabel("epoch")
    axes.set_xlim(first - 0.5, first + count - 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, nbins=min(count, 9)))
    limits = _limits(list(series.values())) if cut else None
    if limits is not None:
        axes.set_ylim(*limits)
        _tell_cut(axes, series, first, limits[1])
    axes.legend(frameon=False, fontsize=8, loc="best" if limits is None else "center right")
    axes.grid(alpha=0.25)


def _limits(series: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Where the axis ends if each curve's largest value is an outlier; None if none is."""
    curves = [np.sort(np.asarray(values, float)[np.isfinite(values)]) for values in series]
    if any(len(curve) < 4 for curve in curves):
        return None
    least = min(curve[0] for curve in curves)
    most = max(curve[-1] for curve in curves)
    rest = max(curve[-2] for curve in curves)
    if most - least <= FLATTENED * (rest - least):
        return None
    margin = 0.05 * (rest - least)
    return float(least - margin), float(rest + 3 * margin)


def _tell_cut(axes: Any, series: Mapping[str, Sequence[float]], first: int, top: float) -> None:
    beyond = [
        (place, value) for values in series.values() for place, value in enumerate(values, start=first) if value > top
    ]
    place, value = max(beyond, key=lambda point: point[1])
    early = place < (axes.get_xlim()[0] + axes.get_xlim()[1]) / 2
    # Beside the line's way back, above the rest of it.
    axes.annotate(
        f"up to {value:.3g} in epoch {place}",
        (place + (1 if early else -1), top),
        (5 if early else -5, -5),
        textcoords="offset points",
        ha="left" if early else "right",
        va="top",
        fontsize=8,
        color=DARK,
    )
