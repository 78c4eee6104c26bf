"""Small plans with random weights, and engines of them whose choices a test makes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from repvgg.engine.choose import choose
from repvgg.engine.engine import Engine
from repvgg.engine.isa import Isa, host_isa
from repvgg.engine.plan import Convolution, Dense, GlobalAverage, Layer, Plan, SqueezeExcite
from repvgg.engine.program import build
from repvgg.engine.reference import compute, relative_error
from repvgg.engine.schedule import Choice, Schedule

GENERATOR = np.random.default_rng(7)

ISAS = [name for name in ("avx2", "avx512", "neon") if name in (host_isa().name, "avx2")]
"""What this machine can run."""
if host_isa().name == "neon":
    ISAS = ["neon"]


def weights(*shape: int, reach: int | None = None) -> np.ndarray:
    """Random weights that keep the size of what goes through."""
    return (GENERATOR.standard_normal(shape) / np.sqrt(reach or shape[0])).astype(np.float32)


def attention(channels: int, position: str) -> SqueezeExcite:
    hidden = max(1, channels // 4)
    return SqueezeExcite(
        weights(channels, hidden), weights(hidden), weights(hidden, channels), weights(channels), position
    )


def convolution(name: str, source: str, channels: int, filters: int, size: int = 3, **more: Any) -> Convolution:
    depth = channels // more.get("groups", 1)
    kernel = weights(size, size, depth, filters, reach=size * size * depth)
    more.setdefault("pads", (size // 2,) * 4)
    position = more.pop("squeeze_excite", None)
    if position is not None:
        more["attention"] = attention(filters, position)
    return Convolution(name, source, kernel, weights(filters), **more)


def network(
    widths: Sequence[int] = (16, 32, 48),
    strides: Sequence[int] = (2, 1, 2),
    channels: int = 3,
    classes: int = 10,
    **more: Any,
) -> Plan:
    """A stem, layers with the settings asked for, and a classifier; logits and the last feature map come out."""
    layers: list[Layer] = []
    source = "images"
    for index, (width, stride) in enumerate(zip(widths, strides, strict=True)):
        name = f"conv{index}"
        layers.append(convolution(name, source, channels, width, strides=(stride, stride), **(more if index else {})))
        source, channels = name, width
    layers += [
        GlobalAverage("pool", source),
        Dense("classifier", "pool", weights(channels, classes), weights(classes)),
    ]
    return Plan("small", 3, tuple(layers), {"logits": "classifier", "features": source})


def images(*shape: int) -> np.ndarray:
    return GENERATOR.standard_normal(shape, dtype=np.float32)


def schedule_of(
    plan: Plan,
    size: tuple[int, int],
    *,
    batch: int = 1,
    threads: int = 1,
    isa: str | Isa | None = None,
    choices: dict[str, Choice] | None = None,
    alone: int = 0,
) -> Schedule:
    """The schedule of a plan, with some layers' choices replaced, and the first ones done image by image."""
    machine = isa if isinstance(isa, Isa) else host_isa(isa)
    schedule = choose(plan, machine, batch=batch, image_size=size, threads=threads)
    steps = [
        replace(step, choice=(choices or {}).get(step.layer.name, step.choice), alone=index < alone)
        for index, step in enumerate(schedule.steps)
    ]
    return replace(schedule, steps=tuple(steps))


def error_of(plan: Plan, schedule: Schedule, calls: int = 2) -> float:
    """The relative error of all outputs against float64; several calls must agree in every bit."""
    batch = images(schedule.batch, *schedule.image_size, plan.channels)
    with Engine(plan, build(plan, schedule)) as engine:
        first = engine.outputs(batch)
        for _ in range(calls - 1):
            again = engine.outputs(batch)
            assert all(np.array_equal(first[name], again[name]) for name in first)
    return relative_error(first, compute(plan, batch.astype(np.float64)))
