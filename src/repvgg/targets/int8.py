"""The targets that have INT8, and what each of their quantizers can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Metadata
from repvgg.quantization.schemes import Calibrator, Scheme
from repvgg.targets import Settings

INT8 = "int8"
"""The precision's name."""


@dataclass(frozen=True)
class Int8Target:
    """A target's quantizer.

    Attributes:
        module: has `quantize(model, images, scheme, float_layers, settings)`, which gives the artifact in memory, and
            `save(artifact, path, metadata)`.
        calibrators: what it knows.
        float_layers: whether single layers can stay in float32.
    """

    module: str
    calibrators: tuple[Calibrator, ...] = ("minmax", "percentile", "entropy")
    float_layers: bool = True

    def lacks(self, scheme: Scheme) -> str | None:
        """What this target cannot do of a scheme, as a clause; None if it can do it all."""
        if scheme.calibrator not in self.calibrators:
            return f"its quantizer has no {scheme.calibrator} ranges, only {' and '.join(self.calibrators)}"
        if scheme.float_layers and not self.float_layers:
            return "its quantizer has no supported way to leave single layers in float32"
        return None

    def quantize(
        self, model: Any, images: np.ndarray, scheme: Scheme, float_layers: tuple[str, ...], settings: Settings
    ) -> Any:
        """The artifact in memory."""
        return import_module(self.module).quantize(model, images, scheme, float_layers, settings)

    def save(self, artifact: Any, path: Path, metadata: Metadata) -> None:
        """Writes what `quantize` gave."""
        import_module(self.module).save(artifact, path, metadata)


INT8_TARGETS: Mapping[str, Int8Target] = {
    "onnx": Int8Target("repvgg.targets.onnx.quantize"),
    "openvino": Int8Target("repvgg.targets.openvino.quantize"),
    "litert": Int8Target("repvgg.targets.litert.quantize", calibrators=("minmax",), float_layers=False),
}


def get_int8_target(name: str) -> Int8Target:
    """The target of that name.

    Raises:
        InputError: if it has no INT8.
    """
    if name not in INT8_TARGETS:
        raise InputError(f"INT8 is written for {', '.join(INT8_TARGETS)}; '{name}' was asked for.")
    return INT8_TARGETS[name]
