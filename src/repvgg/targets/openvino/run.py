"""OpenVINO models (`.xml` with the `.bin` beside it) in OpenVINO."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.errors import FileError
from repvgg.base.files import require_file
from repvgg.base.metadata import CHANNELS, Metadata
from repvgg.runners.runner import Runner, as_input

METADATA_PATH = ["repvgg", "metadata"]

_TYPES: Mapping[str, type[np.generic]] = {"f32": np.float32, "u8": np.uint8}


class OpenVINORunner(Runner):
    """Runs an OpenVINO model on the CPU, in float32 where it is not quantized.

    OpenVINO itself would calculate in bfloat16 on CPUs that can, which is faster and off by about 1 %.

    Images go in as (N, H, W, C) whatever the graph wants, as for ONNX.
    """

    def __init__(self, compiled: Any, name: str, metadata: Metadata) -> None:
        self._compiled = compiled
        self.name = name
        self._input = compiled.inputs[0]
        self._dtype = _TYPES[self._input.get_element_type().get_type_name()]
        batch, *sides = _shape(self._input)
        self._channels_first = sides[0] in CHANNELS or sides[2] not in CHANNELS
        self.batch_size = batch
        self.input_shape = (sides[1], sides[2], sides[0]) if self._channels_first else (sides[0], sides[1], sides[2])
        self.metadata = replace(metadata, input="uint8") if self._dtype is np.uint8 else metadata

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "OpenVINORunner":
        """Reads an `.xml` file and its `.bin`.

        Raises:
            FileError: if one of them is missing, OpenVINO cannot load them, or they do not take one batch of images.
        """
        openvino = require("openvino", extra="openvino", purpose="Running an OpenVINO model")
        require_file(path.with_suffix(".bin"), what="weights file")
        core = openvino.Core()
        try:
            network = core.read_model(path)
            found = network.get_rt_info(METADATA_PATH).astype(str) if network.has_rt_info(METADATA_PATH) else None
            settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}  # 0: all cores
            compiled = core.compile_model(network, "CPU", settings)
        except Exception as error:
            raise FileError(f"OpenVINO cannot load '{path}': {_reason(error)}") from error
        inputs = compiled.inputs
        if len(inputs) != 1 or len(_shape(inputs[0])) != 4 or inputs[0].element_type.get_type_name() not in _TYPES:
            shapes = ", ".join(f"{item.any_name} {item.partial_shape} {item.element_type}" for item in inputs)
            raise FileError(f"'{path}' does not take one batch of images. Its inputs: {shapes}.")
        return cls(compiled, path.name, Metadata.from_json(found) if found is not None else Metadata())

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = self._compiled([self._batch(images)])
        # Feature maps come back the way the images went in. Feature maps of a graph that takes pixels are ONNX's.
        ports = self._compiled.outputs
        if len(ports) == 1:
            return {"output": self._moved(found[ports[0]])}
        # A tensor that is an output twice has both names.
        return {name: self._moved(found[port]) for port in ports for name in sorted(port.names)}

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        batch = self._batch(images)
        return lambda: self._compiled([batch])

    def _batch(self, images: np.ndarray) -> np.ndarray:
        batch = as_input(self, images, self._dtype)
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2) if self._channels_first else batch)

    def _moved(self, array: np.ndarray) -> np.ndarray:
        moves = array.ndim == 4 and (self._channels_first or self.takes_uint8)
        return array.transpose(0, 2, 3, 1) if moves else array


def _shape(port: Any) -> list[int | None]:
    return [axis.get_length() if axis.is_static else None for axis in port.get_partial_shape()]


def _reason(error: Exception) -> str:
    """The line of OpenVINO's message that says what is wrong; the others are places in its own source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if not line.startswith(("Exception from", "Check '"))]
    return (told or lines or [type(error).__name__])[0]
