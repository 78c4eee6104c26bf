"""A report as a picture: what is taken for what, whether probabilities can be trusted, and the worst mistakes."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import ImageOps

from repvgg.base.drawing import DARK, PALE, STRONG, WARNING
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.data import load_image
from repvgg.evaluation.report import ClassRow, EvaluationReport

LABELLED = 30
"""Classes that can be told apart by name beside the axes; of more, the worst are listed."""

WRITTEN = 15
"""Classes whose counts fit into the cells of the matrix."""

CELLS = 100
"""Cells a side that a printed matrix can show; of more classes, neighbours share one."""

SHOWN = 8
THUMBNAIL = 160


def draw_evaluation(report: EvaluationReport, path: Path, *, force: bool = False) -> None:
    """Writes a PNG: confusion matrix, reliability diagram, recall of each class, and the most confident mistakes.

    Raises:
        OutputExistsError: if the file exists and `force` is not set.
        ImageError: if the file of a mistake can no longer be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    refuse_existing(path, force=force)
    figure = Figure(figsize=(15, 8.6), layout=ConstrainedLayoutEngine(h_pad=0.08))
    FigureCanvasAgg(figure)
    figure.suptitle(report.summary().rstrip("."), fontsize=13)
    halves: Any = figure.subfigures(2, 1, height_ratios=(2.5, 1), hspace=0.04)
    top, bottom = halves
    left, middle, right = top.subfigures(1, 3, width_ratios=(1.25, 0.95, 0.9))
    _confusion(left.subplots(), report)
    above, below = middle.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    _reliability(above, below, report)
    _recall(right.subplots(), report)
    _mistakes(bottom, report)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _confusion(axes: Any, report: EvaluationReport) -> None:
    """Rows sum to 1; colors follow the root of the share, so that rare mistakes are seen."""
    names = [row.name for row in report.classes]
    together = -(-len(names) // CELLS)
    starts = np.arange(0, len(names), together)
    counts = np.add.reduceat(np.add.reduceat(report.confusion, starts, axis=0), starts, axis=1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title("Confusion" + (f" ({together} classes a cell)" if together > 1 else ""), fontsize=10)
    if together > 1:
        axes.xaxis.set_major_formatter(lambda place, _: f"{place * together:.0f}")
        axes.yaxis.set_major_formatter(lambda place, _: f"{place * together:.0f}")
    axes.set_xlabel("answer")
    axes.set_ylabel("truth")
    if len(names) <= LABELLED:
        size = 8 if len(names) <= WRITTEN else 7
        axes.set_xticks(range(len(names)), [_short(name) for name in names], rotation=90, fontsize=size)
        axes.set_yticks(range(len(names)), [_short(name) for name in names], fontsize=size)
    if len(names) <= WRITTEN:
        for row, column in zip(*np.nonzero(counts), strict=True):
            color = "white" if shares[row, column] > 0.15 else WARNING if row != column else DARK
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8, color=color)


def _reliability(axes: Any, below: Any, report: EvaluationReport) -> None:
    """Accuracy over confidence, equal where probabilities can be trusted; below, how many images there are."""
    bins = [one for one in report.calibration if one.images]
    width = report.calibration[0].upper
    centres = [one.lower + width / 2 for one in bins]
    axes.bar(centres, [one.accuracy for one in bins], 0.86 * width, color=STRONG, label="accuracy")
    axes.vlines(
        centres,
        [one.confidence for one in bins],
        [one.accuracy for one in bins],
        color=WARNING,
        linewidth=2.5,
        label="distance from the confidence",
    )
    axes.plot([0, 1], [0, 1], color=DARK, linestyle="--", linewidth=1, label="as confident as right")
    axes.set_ylim(0, 1.32)
    axes.set_yticks(np.linspace(0, 1, 6))
    axes.legend(loc="upper left", frameon=False, fontsize=8)
    axes.set_title(f"Calibration: expected error {report.expected_calibration_error:.1%}", fontsize=10)
    below.bar(centres, [100 * one.images / report.images for one in bins], 0.86 * width, color=PALE)
    below.set_xlim(0, 1)
    below.set_ylabel("% of images", fontsize=8)
    below.set_xlabel("confidence (largest probability)")
    for one in (axes, below):
        one.spines[["top", "right"]].set_visible(False)


def _recall(axes: Any, report: EvaluationReport) -> None:
    rows: list[ClassRow] = [row for row in report.classes if row.recall is not None]
    title = "Recall"
    if len(rows) > LABELLED:
        rows = sorted(rows, key=lambda row: row.recall or 0.0)[:LABELLED]
        title += f" of the {LABELLED} worst of {len(report.classes)} classes"
    recalls = [100 * (row.recall or 0.0) for row in rows]
    axes.barh(range(len(rows)), recalls, color=STRONG, height=0.7)
    for place, (row, recall) in enumerate(zip(rows, recalls, strict=True)):
        # Inside the bar where there is room, beside it where there is none.
        inside = recall > 35
        axes.text(
            recall + (-1.5 if inside else 1.5),
            place,
            f"{recall:.0f} % of {row.images}",
            ha="right" if inside else "left",
            va="center",
            fontsize=7,
            color="white" if inside else DARK,
            # The line behind it ends at the text.
            bbox={"facecolor": STRONG if inside else "white", "edgecolor": "none", "pad": 0.8},
            zorder=3,
        )
    axes.axvline(100 * report.top1, color=DARK, linestyle="--", linewidth=1, zorder=2)
    axes.set_yticks(range(len(rows)), [_short(row.name) for row in rows], fontsize=7 if len(rows) > WRITTEN else 8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("% (dashed: all images)")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _mistakes(figure: Any, report: EvaluationReport) -> None:
    shown = report.mistakes[:SHOWN]
    figure.suptitle("The most confident mistakes" if shown else "No mistakes", fontsize=10)
    for place, axes in enumerate(figure.subplots(1, SHOWN)):
        axes.set_axis_off()
        if place >= len(shown):
            continue
        mistake = shown[place]
        axes.imshow(np.asarray(ImageOps.fit(load_image(mistake.path), (THUMBNAIL, THUMBNAIL))))
        axes.set_title(
            f"{_short(mistake.predicted)} {mistake.probability:.0%}\nis {_short(mistake.true)}",
            fontsize=8,
            color=WARNING,
        )


def _short(name: str, length: int = 20) -> str:
    """Cut in the middle: names of a family differ at either end."""
    if len(name) > length:
        name = f"{name[: length // 2]}…{name[-(length // 2 - 1) :]}"
    # A dollar sign would begin a formula.
    return name.replace("$", r"\$")
