"""`.tflite` files in LiteRT, formerly TensorFlow Lite."""

import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.errors import FileError
from repvgg.base.metadata import Metadata
from repvgg.base.quiet import quiet_libraries
from repvgg.runners.runner import Runner, as_input

METADATA_MEMBER = "repvgg.json"


class LiteRTRunner(Runner):
    """Runs a `.tflite` file on the CPU.

    LiteRT's tensors have fixed sizes at any one time; where the model leaves them open, they follow the images. Integer
    ends that have a scale and a zero point take and give what these stand for.
    """

    def __init__(self, interpreter: Any, name: str, metadata: Metadata) -> None:
        self._interpreter = interpreter
        self.name = name
        (self._input,) = interpreter.get_input_details()
        batch, height, width, channels = (int(size) if size > 0 else None for size in _shape(self._input))
        self.batch_size = batch
        self.input_shape = (height, width, channels)
        self._names = _output_names(interpreter)
        self._details = {int(output["index"]): output for output in interpreter.get_output_details()}
        self._ready: tuple[int, ...] | None = None
        pixels = self._input["dtype"] is np.uint8 and not _is_quantized(self._input)
        self.metadata = replace(metadata, input="uint8") if pixels else metadata

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "LiteRTRunner":
        """Reads a `.tflite` file.

        Raises:
            FileError: if LiteRT cannot load it, or it does not take one batch of images.
        """
        litert = require("ai_edge_litert.interpreter", extra="litert", purpose="Running a .tflite file")
        metadata = _metadata(path)
        try:
            # It tells at each start that it has a fast path.
            with quiet_libraries():
                interpreter = litert.Interpreter(model_path=str(path), num_threads=threads or os.cpu_count())
        except Exception as error:
            raise FileError(f"LiteRT cannot load '{path}': {str(error).splitlines()[0]}") from error
        inputs = interpreter.get_input_details()
        if len(inputs) != 1 or len(_shape(inputs[0])) != 4 or not _takes_images(inputs[0]):
            shapes = ", ".join(f"{item['name']} {list(_shape(item))} {item['dtype'].__name__}" for item in inputs)
            raise FileError(f"'{path}' does not take one batch of images. Its inputs: {shapes}.")
        return cls(interpreter, path.name, metadata)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self._invoke(self._batch(images))
        found = {
            name: to_floats(self._interpreter.get_tensor(index), self._details[index])
            for name, index in self._names.items()
        }
        return {"output": next(iter(found.values()))} if len(found) == 1 else found

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        batch = self._batch(images)
        return lambda: self._invoke(batch)

    def _batch(self, images: np.ndarray) -> np.ndarray:
        quantized = _is_quantized(self._input)
        batch = as_input(self, images, np.float32 if quantized else self._input["dtype"])
        return np.ascontiguousarray(to_integers(batch, self._input) if quantized else batch)

    def _invoke(self, batch: np.ndarray) -> None:
        if self._ready != batch.shape:
            self._interpreter.resize_tensor_input(self._input["index"], batch.shape)
            with quiet_libraries():
                self._interpreter.allocate_tensors()
            self._ready = batch.shape
        self._interpreter.set_tensor(self._input["index"], batch)
        self._interpreter.invoke()


def to_integers(values: np.ndarray, details: Any) -> np.ndarray:
    """The integers that stand for `values` in a tensor with scale and zero point."""
    scale, zero = details["quantization"]
    limits = np.iinfo(details["dtype"])
    integers: np.ndarray = np.clip(np.rint(values / np.float32(scale)) + zero, limits.min, limits.max)
    return integers.astype(details["dtype"])


def to_floats(integers: np.ndarray, details: Any) -> np.ndarray:
    """What a tensor's integers stand for; a tensor without scale is what it is."""
    if not _is_quantized(details):
        return integers
    scale, zero = details["quantization"]
    values: np.ndarray = np.float32(scale) * (integers.astype(np.float32) - zero)
    return values


def _is_quantized(details: Any) -> bool:
    return details["dtype"] in (np.int8, np.uint8) and details["quantization"][0] > 0


def _takes_images(details: Any) -> bool:
    return details["dtype"] in (np.float32, np.uint8) or _is_quantized(details)


def _shape(details: Any) -> tuple[int, ...]:
    """A tensor's axes, below 1 where they are open."""
    signature = details["shape_signature"]
    return tuple(int(size) for size in (signature if len(signature) else details["shape"]))


def _output_names(interpreter: Any) -> dict[str, int]:
    """Outputs by the names that the signature gives them, from names to tensors; by position in a file without one."""
    signatures = interpreter.get_signature_list()
    details = interpreter.get_output_details()
    if len(signatures) != 1:
        return {f"output{place}": int(output["index"]) for place, output in enumerate(details)}
    runner = interpreter.get_signature_runner(next(iter(signatures)))
    return {name: int(output["index"]) for name, output in runner.get_output_details().items()}


def _metadata(path: Path) -> Metadata:
    """What stands in a zip archive behind the model; nothing in a file of another maker.

    Raises:
        FileError: if it is damaged.
    """
    if not zipfile.is_zipfile(path):
        return Metadata()
    try:
        with zipfile.ZipFile(path) as archive:
            if METADATA_MEMBER not in archive.namelist():
                return Metadata()
            return Metadata.from_json(archive.read(METADATA_MEMBER).decode())
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' is damaged: its metadata cannot be read ({error}).") from error
