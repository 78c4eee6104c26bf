"""A compiled network that can be called."""

import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np

from repvgg.base.errors import InputError
from repvgg.engine import reference, sync
from repvgg.engine.isa import Isa
from repvgg.engine.layout import aligned
from repvgg.engine.machine import Code
from repvgg.engine.pack import pack, zeros
from repvgg.engine.plan import Plan
from repvgg.engine.program import Program
from repvgg.engine.schedule import Schedule
from repvgg.engine.workers import Workers


class Engine:
    """A network compiled for this machine, one batch and one image size; made by `compile_plan`.

    Calls from several threads take turns. The same images give the same results, bit by bit, whatever threads do.

    Attributes:
        plan: what was compiled.
        program: what it became.
        error: relative error against the plain form, found when it was compiled; None where that was not asked for.
    """

    def __init__(self, plan: Plan, program: Program) -> None:
        self.plan = plan
        self.program = program
        self.error: float | None = None
        schedule = program.schedule
        # LLVM needs one core and none of Python's lock.
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="repvgg-compile") as pool:
            compiling = pool.submit(Code, program.ir + sync.worker(), schedule.isa)
            constants = pack(program.arrays)
        self._workers = Workers(compiling.result(), constants, zeros(program.workspace_bytes), schedule.threads)
        self._finalizer = weakref.finalize(self, self._workers.close)

    @property
    def schedule(self) -> Schedule:
        """How each layer is computed; to be printed."""
        return self.program.schedule

    @property
    def batch(self) -> int:
        """Images in every call."""
        return self.schedule.batch

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of images."""
        return self.schedule.image_size

    @property
    def threads(self) -> int:
        """How many it runs on."""
        return self.schedule.threads

    @property
    def isa(self) -> Isa:
        """The instruction set it is compiled for."""
        return self.schedule.isa

    @property
    def memory(self) -> Mapping[str, int]:
        """Bytes of packed weights ('constants') and of results between layers ('workspace')."""
        return {"constants": self.program.constant_bytes, "workspace": self.program.workspace_bytes}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The first output, such as logits (N, classes), for images (N, H, W, C)."""
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name for images (N, H, W, C) in float32.

        Where a number is not finite, be it in the images or on the way, tiles spread it; generated code passes it on to
        the outputs, and the batch is computed in the plain form instead, as any other runtime would. That takes far
        longer.

        Raises:
            InputError: if the images have another shape or type.
        """
        shape = (self.batch, *self.image_size, self.plan.channels)
        if images.shape != shape or images.dtype != np.float32:
            raise InputError(
                f"'{self.plan.name}' was compiled for images of shape {shape} in float32; these are {images.shape} in "
                f"{images.dtype}."
            )
        images = np.ascontiguousarray(images)
        flat = np.empty(self.program.output_bytes // 4, np.float32)
        self._workers.run(images, flat)
        if not _all_finite(flat):
            return reference.compute(self.plan, images)
        return {
            name: flat[output.offset : output.offset + output.count].reshape(output.shape)
            for name, output in self.program.outputs.items()
        }

    def clock(self) -> np.ndarray:
        """Seconds that each phase of the last call took; only for a program built with `clock`."""
        count = len(self.program.phases) + 1
        notes = self._workers.workspace.view(np.int64)[-aligned(16 * count) // 8 :][: 2 * count].reshape(count, 2)
        return np.diff(notes[:, 0] - notes[0, 0] + 1e-9 * notes[:, 1])

    def close(self) -> None:
        """Ends its threads and frees its code; it cannot be called any more."""
        self._finalizer()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _all_finite(values: np.ndarray) -> bool:
    """Whether no number is NaN or infinite, nor so large that the sum is: one pass.

    A sum and not a product of the array with itself: that would wake threads of NumPy's, which go on spinning.
    """
    with np.errstate(all="ignore"):
        return bool(np.isfinite(np.add.reduce(values)))
