"""How long each layer takes, measured inside of calls."""

from dataclasses import dataclass

import numpy as np

from repvgg.engine.engine import Engine
from repvgg.engine.plan import Plan
from repvgg.engine.program import build
from repvgg.engine.schedule import Schedule


@dataclass(frozen=True)
class LayerTime:
    """A layer's share of a call.

    Attributes:
        layer: its name; 'images' for the copy of what comes in.
        seconds: median over calls.
    """

    layer: str
    seconds: float


def profile(plan: Plan, schedule: Schedule, *, calls: int = 30) -> list[LayerTime]:
    """Times of all layers on random images, in order."""
    with Engine(plan, build(plan, schedule, clock=True)) as engine:
        return layer_times(engine, calls=calls)


def layer_times(engine: Engine, *, calls: int = 30) -> list[LayerTime]:
    """Times of all layers of an engine whose program was built with `clock`."""
    shape = (engine.batch, *engine.image_size, engine.plan.channels)
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    times = []
    for _ in range(calls + 1):
        engine.outputs(images)
        times.append(engine.clock())
    # The first call takes new memory into use.
    medians = np.median(times[1:], axis=0)
    found: dict[str, float] = {}
    for phase, value in zip(engine.program.phases, medians, strict=True):
        found[phase.layer] = found.get(phase.layer, 0.0) + float(value)
    return [LayerTime(layer, value) for layer, value in found.items()]
