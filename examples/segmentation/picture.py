"""A picture of what a network makes of some scenes."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scenes import CLASSES, COLOURS, VOID

ROWS = 4


def draw(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, path: Path, title: str) -> None:
    """Some scenes, evenly spread: photograph, truth, prediction, and where these two differ."""
    places = np.unique(np.linspace(0, len(images) - 1, min(ROWS, len(images)) + 2)[1:-1].astype(int))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(10, 1.95 * len(places) + 1), layout="constrained")
        axes = figure.subplots(len(places), 4, squeeze=False)
        for row, place in zip(axes, places, strict=True):
            wrong = (labels[place] != predicted[place]) & (labels[place] != VOID)
            faded = 255 - (255 - images[place].mean(-1, keepdims=True)) * np.ones(3) * 0.35
            mistakes = np.where(wrong[..., None], COLOURS[predicted[place]], faded).astype(np.uint8)
            panels = (images[place].astype(np.uint8), COLOURS[labels[place]], COLOURS[predicted[place]], mistakes)
            for axis, panel in zip(row, panels, strict=True):
                axis.imshow(panel, interpolation="nearest")
                axis.set_axis_off()
        for axis, name in zip(axes[0], ("scene", "truth", "prediction", "mistakes, as predicted"), strict=True):
            axis.set_title(name)
        handles = [
            Patch(color=colour / 255, label=name) for name, colour in zip((*CLASSES, "void"), COLOURS, strict=True)
        ]
        figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
        figure.suptitle(title, fontsize=12)
        figure.savefig(path, dpi=110)
