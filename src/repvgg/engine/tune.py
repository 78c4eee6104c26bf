"""The schedule that measures best: the model's favourites tried in the network itself, all layers at a time.

A layer alone would find its weights in caches, where the network has pushed them out. So whole networks are timed, in
which every layer is computed in its first, second, third ... way, and each layer takes what was fastest for it. If all
together are not faster than what the model says, that stays.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from repvgg.engine.choose import LARGEST_TILE, MEMORY_FACTOR, Option, assemble, options_of, within
from repvgg.engine.engine import Engine
from repvgg.engine.isa import Isa
from repvgg.engine.plan import Plan
from repvgg.engine.profile import layer_times, profile
from repvgg.engine.program import build
from repvgg.engine.schedule import Direct, Schedule, Winograd

SECONDS = 10.0
"""How long is measured, if nothing is said; what is being tried is finished."""

NOTE = "as measured on this kind of processor"


@dataclass(frozen=True)
class Tuned:
    """What was measured to be fastest, in a form that can be kept: each layer's way in the words of a schedule.

    Words choose among the ways that this version offers, so whoever wrote them cannot make up a way of his own.

    Attributes:
        processor: LLVM's name of it, and the instruction set.
        batch: images in every call.
        image_size: (height, width) of images.
        threads: how many shared the work.
        choices: how each layer is computed, by its name.
    """

    processor: str
    batch: int
    image_size: tuple[int, int]
    threads: int
    choices: Mapping[str, str] = field(hash=False)

    @classmethod
    def of(cls, schedule: Schedule) -> "Tuned":
        """The choices of a schedule."""
        choices = {step.layer.name: str(step.choice) for step in schedule.steps}
        return cls(processor_name(schedule.isa), schedule.batch, schedule.image_size, schedule.threads, choices)

    @property
    def key(self) -> tuple[str, int, tuple[int, int], int]:
        """What it holds for."""
        return self.processor, self.batch, self.image_size, self.threads


def processor_name(isa: Isa) -> str:
    """What choices are kept under."""
    return f"{isa.cpu} {isa.name}"


def recall(
    plan: Plan,
    isa: Isa,
    tuned: Sequence[Tuned],
    *,
    batch: int,
    image_size: tuple[int, int],
    threads: int,
    largest_tile: int = LARGEST_TILE,
) -> Schedule | None:
    """The schedule that was measured for this very case, or None; other arguments are those of `choose`."""
    case = (processor_name(isa), batch, image_size, threads)
    found = next((one for one in tuned if one.key == case), None)
    if found is None:
        return None
    options = options_of(plan, isa, batch=batch, image_size=image_size, threads=threads, largest_tile=largest_tile)
    picked: list[Option] = []
    for layer, some in zip(plan.layers, options, strict=True):
        option = next((option for option in some if str(option.choice) == found.choices.get(layer.name)), None)
        if option is None:
            return None
        picked.append(option)
    # Of a tiny plan even the least can be above the budget.
    least = sum(min(option.bytes for option in some) for some in options)
    if sum(option.bytes for option in picked) > max(int(MEMORY_FACTOR * plan.weight_bytes), least):
        return None
    schedule = assemble(plan, isa, [option.choice for option in picked], batch, image_size, threads)
    return replace(schedule, notes=(NOTE,))


def measure(
    plan: Plan,
    isa: Isa,
    *,
    batch: int,
    image_size: tuple[int, int],
    threads: int,
    seconds: float = SECONDS,
    largest_tile: int = LARGEST_TILE,
) -> Schedule:
    """The schedule of a plan, measured for some seconds; other arguments are those of `choose`."""
    options = options_of(plan, isa, batch=batch, image_size=image_size, threads=threads, largest_tile=largest_tile)
    kinds = [list(_kinds(some)) for some in options]
    measured: list[list[Option]] = [[] for _ in options]
    budget = int(MEMORY_FACTOR * plan.weight_bytes)

    def together(options: list[list[Option]]) -> Schedule:
        choices = [option.choice for option in within(options, budget)]
        return assemble(plan, isa, choices, batch, image_size, threads)

    start = time.monotonic()
    for trial in range(max(map(len, kinds))):
        picked = [some[min(trial, len(some) - 1)] for some in kinds]
        schedule = assemble(plan, isa, [option.choice for option in picked], batch, image_size, threads)
        times = {entry.layer: entry.seconds for entry in profile(plan, schedule, calls=10)}
        for found, option, layer in zip(measured, picked, plan.layers, strict=True):
            found.append(Option(option.choice, times.get(layer.name, 0.0), option.bytes))
        if time.monotonic() - start > seconds:
            break
    reckoned = together(options)
    fastest = together([sorted(found, key=lambda option: option.cost) for found in measured])
    return replace(_faster(plan, fastest, reckoned), notes=(NOTE,))


def _faster(plan: Plan, one: Schedule, other: Schedule) -> Schedule:
    """Whichever of two schedules takes less time in all, in turns."""
    if one == other:
        return one
    programs = [build(plan, schedule, clock=True) for schedule in (one, other)]
    with Engine(plan, programs[0]) as first, Engine(plan, programs[1]) as second:
        totals = [0.0, 0.0]
        for _ in range(4):
            for index, engine in enumerate((first, second)):
                totals[index] += sum(entry.seconds for entry in layer_times(engine, calls=5))
    return one if totals[0] <= totals[1] else other


def _kinds(options: list[Option]) -> Iterator[Option]:
    """The cheapest options of different kinds: those that differ in more than the micro-kernel's shape."""
    seen = set()
    for option in options:
        choice = option.choice
        kind: tuple[object, ...] = (type(choice),)
        if isinstance(choice, Winograd):
            kind = (choice.m, choice.split, choice.stored, choice.private)
        elif isinstance(choice, Direct):
            kind = (Direct, choice.parts > 1)
        if kind not in seen:
            seen.add(kind)
            yield option
