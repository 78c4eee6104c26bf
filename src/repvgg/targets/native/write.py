"""`.repvgg` files: the network as the engine's plan."""

from pathlib import Path
from typing import Any

from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.native.file import PlanFile, write_plan
from repvgg.targets.native.plan import plan_of
from repvgg.targets.network import image_shape


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers.

    Raises:
        InputError: if the engine cannot compile a layer; the message names it.
    """
    batch, height, width, _ = image_shape(model, settings, "Native")
    size = None if height is None or width is None else (height, width)
    plan = plan_of(model, softmax=settings.softmax)
    write_plan(path, PlanFile(plan, metadata, batch, size), settings.precision)
