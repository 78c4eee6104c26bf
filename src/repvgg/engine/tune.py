"""The schedule that measures best: the model's favourites tried in the network itself, all layers at a time.

A layer alone would find its weights in caches, where the network has pushed them out. So whole networks are timed, in
which every layer is computed in its first, second, third ... way, and each layer takes what was fastest for it.
"""

import time
from collections.abc import Iterator

from repvgg.engine.choose import LARGEST_TILE, MEMORY_FACTOR, Option, assemble, options_of, within
from repvgg.engine.isa import Isa
from repvgg.engine.plan import Plan
from repvgg.engine.profile import profile
from repvgg.engine.schedule import Direct, Schedule, Winograd


def tune(
    plan: Plan,
    isa: Isa,
    *,
    batch: int,
    image_size: tuple[int, int],
    threads: int,
    seconds: float = 10.0,
    largest_tile: int = LARGEST_TILE,
) -> Schedule:
    """The schedule of a plan, measured for some seconds; arguments are those of `choose`."""
    options = options_of(plan, isa, batch=batch, image_size=image_size, threads=threads, largest_tile=largest_tile)
    kinds = [list(_kinds(some)) for some in options]
    measured: list[list[Option]] = [[] for _ in options]
    start = time.monotonic()
    for trial in range(max(map(len, kinds))):
        picked = [some[min(trial, len(some) - 1)] for some in kinds]
        schedule = assemble(plan, isa, [option.choice for option in picked], batch, image_size, threads)
        times = {entry.layer: entry.seconds for entry in profile(plan, schedule, calls=10)}
        for found, option, layer in zip(measured, picked, plan.layers, strict=True):
            found.append(Option(option.choice, times.get(layer.name, 0.0), option.bytes))
        if time.monotonic() - start > seconds:
            break
    fastest = within(
        [sorted(found, key=lambda option: option.cost) for found in measured],
        int(MEMORY_FACTOR * plan.weight_bytes),
    )
    return assemble(plan, isa, [option.choice for option in fastest], batch, image_size, threads)


def _kinds(options: list[Option]) -> Iterator[Option]:
    """The cheapest options of different kinds: those that differ in more than the micro-kernel's shape."""
    seen = set()
    for option in options:
        choice = option.choice
        kind: tuple[object, ...] = (type(choice),)
        if isinstance(choice, Winograd):
            kind = (choice.m, choice.split, choice.stored)
        elif isinstance(choice, Direct):
            kind = (Direct, choice.parts > 1)
        if kind not in seen:
            seen.add(kind)
            yield option
