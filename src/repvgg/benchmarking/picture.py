"""The paper's figure on this machine: accuracy against speed, a curve a family, a panel a runtime."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from repvgg.base.files import atomic_output, refuse_existing
from repvgg.base.words import counted
from repvgg.benchmarking.figures import Figures
from repvgg.benchmarking.report import BenchmarkReport, Row

COLORS = ("#c8442f", "#e08a1e", "#2a7f9e", "#4a9a5b", "#7a5aa6", "#8a6d4b", "#444444", "#b0568a")
DARK, FAINT = "#333333", "#999999"

COLUMNS = 2
"""Panels beside each other."""

_PLACES = ((7, 6), (7, -12), (-7, 6), (-7, -12), (9, 16), (9, -22), (-9, 16), (-9, -22), (0, 26), (0, -32))
"""Where a label may stand, in points from its mark: the first free place is taken."""

Point = tuple[Row, Figures]


def draw_benchmark(report: BenchmarkReport, path: Path, *, force: bool = False) -> None:
    """Writes a PNG: accuracy against images a second where accuracies are known, bars of images a second elsewhere."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    refuse_existing(path, force=force)
    known = [point for point in report.measured() if point[0].network.top1 is not None]
    others = [point for point in report.measured() if point[0].network.top1 is None]
    panels = [name for name in report.runtimes() if any(row.runtime == name for row, _ in known)]
    columns = min(COLUMNS, len(panels)) or 1
    rows = -(-len(panels) // columns)
    bars = 0.6 + 0.3 * len(others) if others else 0.0
    figure = Figure(figsize=(6.4 * max(columns, 1.4), 4.6 * rows + bars + 1.3), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(_title(report), fontsize=10, color=DARK)
    heights = [4.6] * rows + ([bars] if others else [])
    grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
    families = list(dict.fromkeys(row.network.family for row, _ in known))
    colors = {family: COLORS[place % len(COLORS)] for place, family in enumerate(families)}
    drawn = []
    for place, runtime in enumerate(panels):
        axes = figure.add_subplot(grid[place // columns, place % columns])
        points = [point for point in known if point[0].runtime == runtime]
        drawn.append((axes, points))
        _draw_curves(axes, points, colors)
        axes.set_title(runtime, fontsize=11)
    if others:
        _draw_bars(figure.add_subplot(grid[rows, :]), others)
    # Labels are placed last, when it is known where everything stands.
    figure.canvas.draw()
    for axes, points in drawn:
        _label(figure, axes, points, colors)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _title(report: BenchmarkReport) -> str:
    sizes = sorted({network.size for network in report.networks()})
    pixels = f"{sizes[0][0]} x {sizes[0][1]} px, " if len(sizes) == 1 else ""
    setting = f"{pixels}{counted(report.batch, 'image')} at once, {counted(report.threads, 'thread')}"
    return f"{report.machine}\n{setting}; medians of {counted(report.rounds, 'round')}.\n{report.load}"


def _draw_curves(axes: Any, points: Sequence[Point], colors: dict[str | None, str]) -> None:
    for family, color in colors.items():
        own = sorted(
            (figures.images_per_second, row.network.top1 or 0.0, figures)
            for row, figures in points
            if row.network.family == family
        )
        if not own:
            continue
        speeds, accuracies = [speed for speed, _, _ in own], [top1 for _, top1, _ in own]
        per_image = [figures.milliseconds_per_image for _, _, figures in own]
        slower = [max(0.0, speed - 1e3 / spread.high) for speed, spread in zip(speeds, per_image, strict=True)]
        faster = [max(0.0, 1e3 / spread.low - speed) for speed, spread in zip(speeds, per_image, strict=True)]
        axes.errorbar(
            speeds, accuracies, xerr=[slower, faster], color=color, marker="o", markersize=6, linewidth=1.6,
            elinewidth=3, ecolor=f"{color}55", zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    speeds = [figures.images_per_second for _, figures in points]
    accuracies = [row.network.top1 or 0.0 for row, _ in points]
    # Room for the labels of the outermost marks.
    axes.set_xlim(min(speeds) / 1.7, max(speeds) * 1.9)
    margin = max(0.8, 0.18 * (max(accuracies) - min(accuracies)))
    axes.set_ylim(min(accuracies) - margin, max(accuracies) + margin)
    axes.set_xlabel("images a second (logarithmic; pale: half of the calls)", fontsize=9)
    axes.set_ylabel("published ImageNet top-1, %", fontsize=9)
    _plain_ticks(axes)
    axes.grid(alpha=0.25, which="both")
    axes.spines[["top", "right"]].set_visible(False)


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=9)


def _label(figure: Any, axes: Any, points: Sequence[Point], colors: dict[str | None, str]) -> None:
    """Each mark's name, where it covers no other name and no mark."""
    from matplotlib.transforms import Bbox

    renderer = figure.canvas.get_renderer()
    marks = [axes.transData.transform((figures.images_per_second, row.network.top1)) for row, figures in points]
    taken = [Bbox.from_bounds(x - 6, y - 6, 12, 12) for x, y in marks]
    taken += [Bbox.from_bounds(x - 2, y - 2, 4, 4) for line in axes.lines for x, y in _along(line)]
    for row, figures in sorted(points, key=lambda point: -point[1].images_per_second):
        for place, (right, up) in enumerate(_PLACES, start=1):
            text = axes.annotate(
                row.network.name,
                (figures.images_per_second, row.network.top1),
                (right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right" if right < 0 else "center",
                fontsize=8.5,
                color=colors[row.network.family],
                zorder=4,
            )
            box = text.get_window_extent(renderer).expanded(1.02, 1.1)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0
            if place == len(_PLACES) or (inside and not any(box.overlaps(other) for other in taken)):
                taken.append(box)
                break
            text.remove()


def _along(line: Any) -> Any:
    """Points on a curve, a few pixels from each other, on the canvas."""
    import numpy as np

    corners = line.get_transform().transform(line.get_xydata())
    shares = np.linspace(0, 1, 100)[:, None]
    return [point for a, b in pairwise(corners) for point in a + shares * (b - a)]


def _draw_bars(axes: Any, points: Sequence[Point]) -> None:
    """Networks whose accuracy nobody has published: how fast they are."""
    names = [f"{row.network.name}, {row.runtime}" for row, _ in points]
    speeds = [figures.images_per_second for _, figures in points]
    axes.barh(range(len(points)), speeds, color=COLORS[2], height=0.65)
    for place, speed in enumerate(speeds):
        axes.text(speed, place, f" {speed:.1f}", va="center", fontsize=8.5, color=DARK)
    axes.set_yticks(range(len(points)), names, fontsize=8.5)
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.set_xlim(0, 1.12 * max(speeds))
    axes.set_xlabel("images a second", fontsize=9)
    axes.tick_params(axis="x", labelsize=9, colors=FAINT)
    axes.spines[["top", "right"]].set_visible(False)
