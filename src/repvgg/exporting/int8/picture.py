"""What eight bits cost each layer, as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.drawing import DARK, HATCH, PALE, STRONG
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.quantization.sensitivity import LayerRow

LOUDEST = 80.0
"""Decibels at which a bar ends: beyond them nothing is lost."""


def draw_layers(
    before: Sequence[LayerRow], after: Sequence[LayerRow] | None, path: Path, *, title: str, force: bool = False
) -> None:
    """Writes a PNG with a row for each layer: the ranges of its channels, its noise, and what it costs the network.

    Args:
        before: the network as it came.
        after: the same network as it was prepared for quantization; None if nothing was.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    refuse_existing(path, force=force)
    figure = Figure(figsize=(14, 2.2 + 0.26 * len(before)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    ranges, own, network, agreement = figure.subplots(1, 4, sharey=True, width_ratios=(1.3, 1, 1, 1))
    pale = {"color": PALE, "hatch": HATCH, "edgecolor": "#7a7a7a", "linewidth": 0.4}
    series: list[tuple[Sequence[LayerRow], dict[str, Any], str, float]] = [(before, pale, "as it came", -0.2)]
    series += [(after, {"color": STRONG}, "as it is quantized", 0.2)] if after else []
    for rows, style, label, shift in series:
        places = np.arange(len(rows)) + shift
        smallest = np.array([max(row.smallest, 1e-9) for row in rows])
        ranges.barh(places, [row.largest for row in rows] - smallest, 0.38, left=smallest, label=label, **style)
        for axes, values in (
            (own, [row.output_sqnr for row in rows]),
            (network, [row.network_sqnr for row in rows]),
        ):
            axes.barh(places, np.clip(values, 0, LOUDEST), 0.38, **style)
        changed = [100 * (1 - row.agreement) for row in rows if row.agreement is not None]
        if len(changed) == len(rows):
            agreement.barh(places, changed, 0.38, **style)
    ranges.set_xscale("log")
    above = [row.smallest for rows, *_ in series for row in rows if row.smallest > 0]
    ranges.set_xlim(min(above, default=1e-9) / 1.5)
    ranges.set_yticks(range(len(before)), [row.name for row in before], fontsize=8)
    ranges.set_ylim(len(before) - 0.4, -0.6)
    figure.legend(*ranges.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    _label(ranges, "Range of the channels", "largest |weight| of the output channels, smallest to largest")
    _label(own, "Noise of the layer", "output, signal to quantization noise, dB")
    _label(network, "Noise of the network", "logits with this layer alone in 8 bits, dB")
    _label(agreement, "Sensitivity", "% of images with another class, likewise")
    with atomic_output(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(unit, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", colors=DARK)
