"""Curves and bars as coordinates: the page draws them itself, so that they are sharp and follow its colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 460, 230
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 24
"""Margins for the numbers beside the axes."""


@dataclass(frozen=True)
class Line:
    """A curve: what it is, and its points as SVG's `polyline` wants them."""

    label: str
    kind: str
    points: str
    dots: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Chart:
    """Curves over epochs.

    Attributes:
        xs, ys: places and numbers along the axes.
        mark: where the best epoch is.
    """

    title: str
    lines: tuple[Line, ...]
    xs: tuple[tuple[float, str], ...]
    ys: tuple[tuple[float, str], ...]
    mark: float | None
    width: int = WIDTH
    height: int = HEIGHT


def curves(history: Sequence[Mapping[str, float]], column: str, title: str, factor: float, best: float | None) -> Chart:
    """A column of a run's history on training and on validation images; values that are not finite are left out."""
    from matplotlib.ticker import MaxNLocator

    epochs = [row["epoch"] for row in history]
    series = {
        "training images, augmented": ("training", [factor * row[column] for row in history]),
        "validation images": ("validation", [factor * row[f"val_{column}"] for row in history]),
    }
    finite = [value for _, values in series.values() for value in values if math.isfinite(value)] or [0.0]
    heights = [float(tick) for tick in MaxNLocator(5).tick_values(min(finite), max(finite))]
    places = [float(tick) for tick in MaxNLocator(8, integer=True).tick_values(epochs[0], epochs[-1])]
    places = [tick for tick in places if epochs[0] <= tick <= epochs[-1]]
    low, high = heights[0], heights[-1]

    def x(epoch: float) -> float:
        span = max(epochs[-1] - epochs[0], 1)
        return round(LEFT + (epoch - epochs[0]) / span * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / max(high - low, 1e-12) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for label, (kind, values) in series.items():
        points = [(x(epoch), y(value)) for epoch, value in zip(epochs, values, strict=True) if math.isfinite(value)]
        text = " ".join(f"{left},{up}" for left, up in points)
        # A single point makes no line.
        lines.append(Line(label, kind, text, tuple(points) if len(points) < 3 else ()))
    return Chart(
        title,
        tuple(lines),
        tuple((x(tick), f"{tick:g}") for tick in places),
        tuple((y(tick), f"{tick:g}") for tick in heights),
        x(best) if best is not None else None,
    )


LEAST_ERROR = 1e-9
"""Where bars of errors begin: zero has no place on a logarithmic scale."""


def log_share(value: float, limit: float) -> float:
    """How long the bar of an error is, 0 to 1, on a logarithmic scale that ends ten times beyond the limit."""
    if not value > LEAST_ERROR:
        return 0.0
    return min(1.0, math.log10(value / LEAST_ERROR) / math.log10(10 * limit / LEAST_ERROR))
