"""A report as a picture."""

from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.drawing import DARK, STRONG, WARNING
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.verification.report import VerificationReport


def draw_report(report: VerificationReport, path: Path, *, force: bool = False) -> None:
    """Writes a PNG with the error of each block and of the whole network, on a logarithmic scale beside the limit."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    refuse_existing(path, force=force)
    rows = len(report.blocks) + 1
    figure = Figure(figsize=(8, 1.8 + 0.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    draw_errors(figure.add_subplot(), report)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def draw_errors(axes: Any, report: VerificationReport) -> None:
    """The bars, on axes of the caller's."""
    names = [row.name for row in report.blocks] + ["whole network"]
    errors = np.array([row.relative_error for row in report.blocks] + [report.max_relative_error])
    finite = np.where(np.isfinite(errors), errors, 1e3)
    # Zero has no place on a logarithmic scale; equal to the last bit is drawn at the left edge.
    drawn = np.maximum(finite, 1e-9)
    colors = [STRONG if error <= report.rtol else WARNING for error in errors]
    axes.barh(range(len(names)), drawn, color=colors, height=0.7, left=0)
    axes.set_xscale("log")
    axes.set_xlim(1e-9, max(report.rtol, float(drawn.max())) * 10)
    axes.axvline(report.rtol, color=DARK, linestyle="--", linewidth=1)
    axes.text(report.rtol, -1.1, f"limit {report.rtol:.0e}", ha="center", fontsize=8, color=DARK)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.7)
    axes.set_xlabel("relative error")
    verdict = "agree" if report.passed else "DIFFER"
    axes.set_title(f"{report.reference} and {report.candidate} {verdict}", fontsize=10, pad=16, wrap=True)
    axes.spines[["top", "right"]].set_visible(False)
