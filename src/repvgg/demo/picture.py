"""The demo's one picture: how it learned, what conversion changed, that nothing else changed, and what it says."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from repvgg.base.drawing import STRONG, WARNING, draw_epochs
from repvgg.base.files import atomic_output
from repvgg.models.cost import Cost
from repvgg.runners.classifier import softmax
from repvgg.verification import VerificationReport
from repvgg.verification.picture import draw_errors

ORANGE, GREEN = "#e08a2b", "#7fb86b"


def draw_demo(
    path: Path,
    *,
    history: Mapping[str, Sequence[float]],
    cost: Cost,
    report: VerificationReport,
    pictures: Sequence[Image.Image],
    labels: np.ndarray,
    logits: np.ndarray,
    class_names: Sequence[str],
) -> None:
    """Writes the PNG. `logits` are what the exported file said about `pictures`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 9), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle("RepVGG-A0 on handwritten digits: trained with branches, shipped as one path", fontsize=14)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.05, 1))
    left, right = halves
    top, bottom = left.subfigures(2, 1, height_ratios=(1, 1.15))
    _learning_curve(top.add_subplot(), history)
    _structures(bottom.add_subplot(), cost)
    upper, lower = right.subfigures(2, 1, height_ratios=(1.25, 1))
    draw_errors(upper.add_subplot(), report)
    _predictions(lower, pictures, labels, logits, class_names)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _learning_curve(axes: Any, history: Mapping[str, Sequence[float]]) -> None:
    shares = {"training images": history["accuracy"], "test images": history["val_accuracy"]}
    draw_epochs(axes, {name: [100 * share for share in values] for name, values in shares.items()})
    axes.set_title(f"Accuracy: {100 * history['val_accuracy'][-1]:.2f} % on the test images", fontsize=10)
    axes.set_ylabel("%")
    axes.set_ylim(0, 102)
    axes.spines[["top", "right"]].set_visible(False)


def _structures(axes: Any, cost: Cost) -> None:
    """Both forms side by side, a column a branch and a row a block."""
    rows = len(cost.blocks)
    columns = {"3x3 + BN": (0.0, STRONG), "1x1 + BN": (1.0, ORANGE), "BN": (2.0, GREEN)}
    for row, block in enumerate(cost.blocks):
        for name, (x, color) in columns.items():
            if name != "BN" or block.spec.shape.keeps_shape:
                axes.barh(row, 0.9, left=x, height=0.72, color=color)
        axes.barh(row, 0.9, left=4.2, height=0.72, color=STRONG)
        label = f"{block.spec.in_channels} > {block.spec.filters}" + (" /2" if block.spec.strides == 2 else "")
        axes.text(3.1, row, label, fontsize=7, va="center", color="#444444")
    for name, (x, color) in columns.items():
        axes.text(x + 0.45, -0.8, name, ha="center", fontsize=8, color=color)
    axes.text(4.65, -0.8, "3x3 + ReLU", ha="center", fontsize=8, color=STRONG)
    axes.text(
        1.45, rows + 0.5, f"training form\n{cost.train_parameters:,} parameters", ha="center", va="top", fontsize=9
    )
    axes.text(
        4.65, rows + 0.5, f"deploy form\n{cost.deploy_parameters:,} parameters", ha="center", va="top", fontsize=9
    )
    axes.set_yticks(range(rows), [block.spec.name for block in cost.blocks], fontsize=7)
    axes.set_ylim(rows + 2.2, -1.4)
    axes.set_xlim(-0.1, 5.6)
    axes.set_xticks([])
    axes.set_title("The same function, two structures", fontsize=10)
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)


def _predictions(
    figure: Any, pictures: Sequence[Image.Image], labels: np.ndarray, logits: np.ndarray, class_names: Sequence[str]
) -> None:
    """The least certain right answers and all mistakes come first: they are the ones worth a look."""
    probabilities = softmax(logits)
    guesses = probabilities.argmax(axis=1)
    interest = np.lexsort((probabilities.max(axis=1), guesses == labels))[:24]
    mistakes = int(np.sum(guesses != labels))
    figure.suptitle(
        f"What the ONNX file says ({mistakes} mistakes in {len(labels)}; mistakes first, then the least certain)",
        fontsize=10,
    )
    for axes, index in zip(figure.subplots(4, 6).flat, interest, strict=True):
        axes.imshow(pictures[index], cmap="gray_r")
        right = guesses[index] == labels[index]
        text = f"{class_names[guesses[index]]}  {probabilities[index].max():.0%}"
        if not right:
            text += f"  (is {class_names[labels[index]]})"
        axes.set_title(text, fontsize=8, color="#222222" if right else WARNING, pad=2)
        axes.set_axis_off()
