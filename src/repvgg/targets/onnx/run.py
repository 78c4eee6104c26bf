"""ONNX files in ONNX Runtime."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.errors import FileError
from repvgg.base.metadata import CHANNELS, Metadata
from repvgg.runners.runner import Runner, as_input

METADATA_KEY = "repvgg"

_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
}


class OnnxRunner(Runner):
    """Runs an ONNX file on the CPU.

    Images go in as (N, H, W, C) whatever the graph wants; a graph with channels in the second place, which is ONNX's
    habit, gets them transposed. A graph that takes uint8 gets pixels.
    """

    def __init__(self, session: Any, name: str) -> None:
        self.session = session
        self.name = name
        (self._input,) = session.get_inputs()
        self._dtype = _TYPES[self._input.type]
        self._outputs = [output.name for output in session.get_outputs()]
        batch, *sides = (size if isinstance(size, int) else None for size in self._input.shape)
        self._channels_first = sides[0] in CHANNELS or sides[2] not in CHANNELS
        self.batch_size = batch
        self.input_shape = (sides[1], sides[2], sides[0]) if self._channels_first else (sides[0], sides[1], sides[2])
        custom = session.get_modelmeta().custom_metadata_map
        self.metadata = Metadata.from_json(custom[METADATA_KEY]) if METADATA_KEY in custom else Metadata()
        if self._dtype is np.uint8:
            self.metadata = replace(self.metadata, input="uint8")

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "OnnxRunner":
        """Reads an `.onnx` file.

        Raises:
            FileError: if ONNX Runtime cannot load it, or it does not take one batch of images.
        """
        runtime = require("onnxruntime", extra="onnx", purpose="Running an ONNX file")
        try:
            options = runtime.SessionOptions()
            options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
            session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise FileError(f"ONNX Runtime cannot load '{path}': {str(error).splitlines()[0]}") from error
        inputs = session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _TYPES:
            shapes = ", ".join(f"{item.name} {item.shape} {item.type}" for item in inputs)
            raise FileError(f"'{path}' does not take one batch of images. Its inputs: {shapes}.")
        return cls(session, path.name)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        results = self.session.run(self._outputs, {self._input.name: self._batch(images)})
        # Feature maps come back the way the images went in. Feature maps of a graph that takes pixels are ONNX's own.
        moved = [array.transpose(0, 2, 3, 1) if self._moves(array) else array for array in results]
        if len(moved) == 1:
            return {"output": moved[0]}
        return dict(zip(self._outputs, moved, strict=True))

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        feed = {self._input.name: self._batch(images)}
        return lambda: self.session.run(self._outputs, feed)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        batch = as_input(self, images, self._dtype)
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if self._channels_first else batch

    def _moves(self, array: np.ndarray) -> bool:
        return array.ndim == 4 and (self._channels_first or self.takes_uint8)
