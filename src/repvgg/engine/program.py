"""A network as a program: code, where its data is, and what a caller has to bring."""

import math
from dataclasses import dataclass

from repvgg.engine import sync
from repvgg.engine.emit import depthwise, direct, pointwise, winograd
from repvgg.engine.emit.module import Module
from repvgg.engine.ir import Function, declarations
from repvgg.engine.layout import ARGUMENTS, Images, Phase, Place, aligned
from repvgg.engine.memory import FACTORS, HIDDEN, MEAN, Memory
from repvgg.engine.pack import Packed, packed, places
from repvgg.engine.plan import INPUT, Convolution, Dense, GlobalAverage, Plan
from repvgg.engine.schedule import Depthwise, Direct, Product, Schedule, Step, Winograd, product_choice

ENTRY = "repvgg_thread"
"""The symbol that every thread calls: (constants, workspace, images, outputs, thread, threads)."""


@dataclass(frozen=True)
class Output:
    """One output: where it begins among all outputs, in float32, and its shape, batch included."""

    offset: int
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Program:
    """What `build` gives.

    Attributes:
        schedule: what it was made from.
        ir: LLVM's intermediate language; it contains no address of this process.
        phases: in order.
        arrays: what has to be packed into the constants.
        constant_bytes: memory of the constants, aligned to cache lines.
        workspace_bytes: memory for results between layers, aligned to cache lines; all zero before the first call.
        outputs: by name, one after the other in one array.
        output_bytes: of all outputs.
    """

    schedule: Schedule
    ir: str
    phases: tuple[Phase, ...]
    arrays: dict[str, Packed]
    constant_bytes: int
    workspace_bytes: int
    outputs: dict[str, Output]
    output_bytes: int


def build(plan: Plan, schedule: Schedule, *, clock: bool = False) -> Program:
    """Writes the program of a plan.

    Args:
        plan: the network.
        schedule: how it is computed.
        clock: note the time of every phase at the end of the workspace, for profiles.
    """
    arrays = packed(schedule)
    constants, constant_bytes = places(arrays)
    memory = Memory(plan, schedule)
    module = Module(schedule.isa, constants, memory.scratch, memory.shared)
    outputs, output_bytes = _outputs(plan, schedule)
    _Builder(plan, schedule, module, memory, outputs).write()
    isa = schedule.isa
    # One thread's phases are timed without what others take its core for; several wait for one another.
    counters, threads = memory.bytes, schedule.threads
    notes = counters + sync.counter_bytes(len(module.phases), threads)
    timed = sync.Clock(notes, 3 if threads == 1 else 1) if clock else None
    ir = "".join(
        (
            declarations(isa),
            sync.waiting(isa),
            *module.functions.values(),
            sync.entry(module.phases, ENTRY, counters, threads, timed),
        )
    )
    return Program(
        schedule=schedule,
        ir=ir,
        phases=tuple(module.phases),
        arrays=arrays,
        constant_bytes=constant_bytes,
        workspace_bytes=notes + (aligned(16 * (len(module.phases) + 1)) if clock else 0),
        outputs=outputs,
        output_bytes=output_bytes,
    )


def _outputs(plan: Plan, schedule: Schedule) -> tuple[dict[str, Output], int]:
    outputs: dict[str, Output] = {}
    offset = 0
    for name, shape in ((name, plan.shapes(*schedule.image_size)[layer]) for name, layer in plan.outputs.items()):
        outputs[name] = Output(offset, (schedule.batch, *shape))
        offset += outputs[name].count
    return outputs, 4 * offset


class _Builder:
    def __init__(
        self, plan: Plan, schedule: Schedule, module: Module, memory: Memory, outputs: dict[str, Output]
    ) -> None:
        self.plan, self.schedule, self.module, self.memory, self.outputs = plan, schedule, module, memory, outputs

    def write(self) -> None:
        steps = self.schedule.steps
        alone = [step for step in steps if step.alone]
        together = steps[len(alone) :]
        if alone:
            self._alone(alone)
        else:
            self._images(Place("%images"))
        for step in together:
            self._step(step)

    def _images(self, place: Place) -> None:
        target = self.memory.images[INPUT]
        if target.channels == self.plan.channels:
            pointwise.copy_in(self.module, place, target)
        else:
            pointwise.copy_in_padded(self.module, place, self.plan.channels, target)

    def _alone(self, steps: list[Step]) -> None:
        """The first steps image by image: a task is an image, from its pixels to what the last of them gives."""
        module, memory = self.module, self.memory
        shared, before = module.shared, module.phases
        height, width = self.schedule.image_size
        module.shared, module.phases = module.scratch + memory.handed, []
        self._images(Place("%images", of_image=4 * height * width * self.plan.channels))
        for index, step in enumerate(steps):
            target = memory.images[step.layer.name]
            if index == len(steps) - 1:
                place = Place(target.place.root, target.place.offset, of_image=4 * target.image)
                target = Images(place, 1, *(getattr(target, name) for name in _REST))
            self._step(step, target)
        parts, module.shared, module.phases = module.phases, shared, before

        def task(f: Function) -> None:
            arguments = ", ".join(f"{kind} {name}" for kind, name in ARGUMENTS[:5])
            for part in parts:

                def one(index: int | str, _: list[str], part: Phase = part) -> None:
                    f.do(f"call void @{part.function}({arguments}, i64 %task, i64 {index})")

                f.loop(0, part.tasks, 1, one)

        module.number += len(parts)
        module.phase(f"{steps[0].layer.name} to {steps[-1].layer.name}", self.schedule.batch, task)

    def _step(self, step: Step, target: Images | None = None) -> None:
        module, memory, layer = self.module, self.memory, step.layer
        source = memory.images[layer.source]
        target = target or memory.images[layer.name]
        if isinstance(layer, GlobalAverage):
            pointwise.mean(module, layer.name, source, target)
        elif isinstance(layer, Dense):
            if not isinstance(step.choice, Product):
                raise TypeError(f"No way to compute '{layer.name}': {step.choice}.")
            pointwise.dense(module, layer.name, layer.name, step.choice, source, target, layer.activation)
            if layer.activation == "softmax":
                pointwise.softmax(module, layer.name, target, layer.channels)
        else:
            self._convolution(step, layer, source, target)
        for name, output in self.plan.outputs.items():
            if output == layer.name:
                place = Place("%outputs", 4 * self.outputs[name].offset)
                channels = self.outputs[name].shape[-1]
                pointwise.copy_out(module, name, target, channels, place)

    def _convolution(self, step: Step, layer: Convolution, source: Images, target: Images) -> None:
        module = self.module
        if isinstance(step.choice, Winograd):
            winograd.emit(module, step, step.choice, source, target)
        elif isinstance(step.choice, Direct):
            direct.emit(module, step, step.choice, source, target)
        elif isinstance(step.choice, Depthwise):
            depthwise.emit(module, step, step.choice, source, target)
        else:
            raise TypeError(f"No way to compute '{layer.name}': {step.choice}.")
        attention = layer.attention
        if attention is None:
            return
        name, lanes = layer.name, self.schedule.isa.lanes
        mean, hidden, factors = (self.memory.images[f"{name}/{part}"] for part in (MEAN, HIDDEN, FACTORS))
        pointwise.mean(module, name, target, mean)
        down, up = (product_choice(module.isa, images.channels // lanes) for images in (hidden, factors))
        pointwise.dense(module, name, f"{name}/down", down, mean, hidden, "relu")
        pointwise.dense(module, name, f"{name}/up", up, hidden, factors, "sigmoid")
        early = attention.position == "before_activation"
        pointwise.scale(module, name, factors, target, layer.activation if early else "linear")


_REST = ("height", "width", "channels", "top", "left", "rows", "columns")
