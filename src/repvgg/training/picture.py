"""A run as one picture: how it learned, what it mixes up, and where it is wrong."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.drawing import WARNING, draw_epochs
from repvgg.base.files import atomic_output
from repvgg.reporting.facts import Mistake

MOST_NAMES = 30
"""Classes up to which the confusion matrix names them."""


def draw_training(
    path: Path,
    history: Sequence[Mapping[str, float]],
    confusion: np.ndarray,
    class_names: Sequence[str],
    mistakes: Sequence[Mistake],
    accuracy: float,
) -> None:
    """Writes the PNG.

    Args:
        confusion: (classes, classes), images by true class (row) and predicted class (column).
        mistakes: the most confident ones.
        accuracy: of the best network on the validation images, 0 to 1.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7.2 if mistakes else 5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{accuracy:.2%} of the validation images are right", fontsize=14)
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.7, 1)) if mistakes else [figure]
    curves, losses, matrix = parts[0].subplots(1, 3, width_ratios=(1, 1, 1.15))
    _curve(curves, history, "accuracy", "accuracy, %", 100)
    _curve(losses, history, "cross_entropy", "cross entropy, nats", 1, cut=True)
    _confusion(matrix, confusion, class_names)
    if mistakes:
        _mistakes(parts[1], mistakes)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _curve(
    axes: Any, history: Sequence[Mapping[str, float]], name: str, title: str, factor: float, *, cut: bool = False
) -> None:
    legends = {"": "training images, augmented", "val_": "validation images"}
    series = {legend: [factor * row[prefix + name] for row in history] for prefix, legend in legends.items()}
    draw_epochs(axes, series, int(history[0]["epoch"]), cut=cut)
    axes.set_title(title, fontsize=10)


def _confusion(axes: Any, confusion: np.ndarray, names: Sequence[str]) -> None:
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_title("true class (rows), predicted class (columns)", fontsize=10)
    if len(names) > MOST_NAMES:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    size = 8 if len(names) <= 12 else 5
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=size)
    axes.set_yticks(range(len(names)), names, fontsize=size)
    for row, column in np.ndindex(*confusion.shape):
        if confusion[row, column] and len(names) <= 12:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=colour, fontsize=8)


def _mistakes(figure: Any, mistakes: Sequence[Mistake]) -> None:
    figure.suptitle("The most confident mistakes", fontsize=11)
    for axes, (image, true, predicted, probability, _) in zip(
        figure.subplots(1, len(mistakes), squeeze=False)[0], mistakes, strict=True
    ):
        axes.imshow(image[..., 0] if image.shape[-1] == 1 else image[..., :3], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{true}\ntaken for {predicted}\n{probability:.0%}", fontsize=8, color=WARNING)
        axes.set_axis_off()
