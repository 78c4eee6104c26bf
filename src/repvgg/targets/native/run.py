"""`.repvgg` files in the engine: compiled for this machine when the first images come."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.metadata import Preprocessing
from repvgg.runners.runner import Runner, as_input
from repvgg.targets.native.file import PlanFile, read_plan

LARGEST_BATCH = 32
"""More images are computed in parts. Larger batches are not faster, and memory grows with them."""

KEPT = 4
"""Compiled networks that a runner keeps, one for each batch and image size. The last ones used stay."""


class NativeRunner(Runner):
    """Runs a plan on the CPU, compiled for the size of the images it is given.

    The first images of a size wait for the compiler, about a second for RepVGG-A0. A few images more or less, as at the
    end of a data set, are computed by what is compiled already: the batch is filled up with zeros.
    """

    def __init__(self, file: PlanFile, name: str, threads: int | None = None) -> None:
        require("llvmlite", extra="engine", purpose="Running a .repvgg file")
        self.name = name
        self.plan = file.plan
        self.metadata = file.metadata
        self.batch_size = file.batch
        height, width = file.image_size or (None, None)
        self.input_shape = (height, width, file.plan.channels)
        self.tuned = file.tuned
        self._threads = threads
        self._engines: OrderedDict[tuple[int, int, int], Any] = OrderedDict()
        self._lock = Lock()

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "NativeRunner":
        """Reads a `.repvgg` file.

        Args:
            threads: how many cores to use; all of them if None.

        Raises:
            FileError: if it is damaged, or not such a file.
            MissingDependencyError: if llvmlite is not installed.
        """
        return cls(read_plan(path), path.name, threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        batch = as_input(self, images, np.uint8 if self.takes_uint8 else np.float32)
        if self.takes_uint8:
            batch = (self.metadata.preprocessing or Preprocessing()).normalize(batch)
        if not len(batch):
            shapes = self.plan.shapes(*batch.shape[1:3])
            parts = [{name: np.zeros((0, *shapes[layer]), np.float32) for name, layer in self.plan.outputs.items()}]
        else:
            starts = range(0, len(batch), LARGEST_BATCH)
            parts = [self._part(batch[start : start + LARGEST_BATCH]) for start in starts]
        found = {name: np.concatenate([part[name] for part in parts]) for name in self.plan.outputs}
        return {"output": next(iter(found.values()))} if len(found) == 1 else found

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        if self.takes_uint8:
            return super().repeated(images)
        batch = np.ascontiguousarray(as_input(self, images, np.float32))
        engine, size = self._engine(*batch.shape[:3])
        return super().repeated(images) if size != len(batch) else lambda: engine.outputs(batch)

    def _part(self, images: np.ndarray) -> dict[str, np.ndarray]:
        engine, size = self._engine(*images.shape[:3])
        if size > len(images):
            filled = np.zeros((size, *images.shape[1:]), np.float32)
            filled[: len(images)] = images
            images, count = filled, len(images)
            return {name: values[:count] for name, values in engine.outputs(images).items()}
        outputs: dict[str, np.ndarray] = engine.outputs(np.ascontiguousarray(images))
        return outputs

    def _engine(self, count: int, height: int, width: int) -> tuple[Any, int]:
        """What computes `count` images of a size, and how many it takes at once."""
        from repvgg.engine import compile_plan

        with self._lock:
            # No more than twice the work: filling up eight images for one would cost more than it saves.
            fitting = [key for key in self._engines if key[1:] == (height, width) and count <= key[0] <= 2 * count]
            key = min(fitting, default=(count, height, width))
            if key not in self._engines:
                self._engines[key] = compile_plan(
                    self.plan, batch=count, image_size=(height, width), threads=self._threads, tuned=self.tuned
                )
                while len(self._engines) > KEPT:
                    # Not closed: another thread may be running it. It goes with the last who holds it.
                    self._engines.popitem(last=False)
            self._engines.move_to_end(key)
            return self._engines[key], key[0]
