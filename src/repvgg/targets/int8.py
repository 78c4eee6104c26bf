"""The targets that have INT8, and what each of their quantizers can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repvgg.base.errors import InputError
from repvgg.base.metadata import Metadata
from repvgg.base.processor import LEVELS, PORTABLE, SAFE_LEVELS, VNNI, get_processor, overflows
from repvgg.targets import Settings

if TYPE_CHECKING:
    import numpy as np

    from repvgg.quantization.schemes import Calibrator, Scheme

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
        portable_levels: steps of the weights' grids, from 0 to the largest, with which its runtime is right on every
            processor.
    """

    module: str
    calibrators: "tuple[Calibrator, ...]" = ("minmax", "percentile", "entropy")
    float_layers: bool = True
    portable_levels: int = LEVELS

    def lacks(self, scheme: "Scheme") -> str | None:
        """What this target cannot do of a scheme, as a clause; None if it can do it all."""
        if scheme.calibrator not in self.calibrators:
            return f"its quantizer has no {scheme.calibrator} ranges, only {' and '.join(self.calibrators)}"
        if scheme.float_layers and not self.float_layers:
            return "its quantizer has no supported way to leave single layers in float32"
        return None

    @property
    def overflows(self) -> bool:
        """Whether its runtime adds products of 8 bits in 16 on processors that have nothing better."""
        return self.portable_levels < LEVELS

    def made_for(self, processor: str) -> str:
        """The kind of processor, `portable` or `vnni`, that its file is right on if it is asked for `processor`.

        Raises:
            UnknownNameError: if there is no such kind.
        """
        wanted = get_processor(processor)
        return wanted if self.overflows else PORTABLE

    def levels(self, processor: str) -> int:
        """Steps of the weights' grids, from 0 to the largest, in a file for this kind of processor."""
        return self.portable_levels if self.made_for(processor) == PORTABLE else LEVELS

    def quantize(
        self, model: Any, images: "np.ndarray", scheme: "Scheme", float_layers: tuple[str, ...], settings: Settings
    ) -> Any:
        """The artifact in memory."""
        return import_module(self.module).quantize(model, images, scheme, float_layers, settings)

    def save(self, artifact: Any, path: Path, metadata: Metadata) -> None:
        """Writes what `quantize` gave."""
        import_module(self.module).save(artifact, path, metadata)


INT8_TARGETS: Mapping[str, Int8Target] = {
    "onnx": Int8Target("repvgg.targets.onnx.quantize", portable_levels=SAFE_LEVELS),
    "openvino": Int8Target("repvgg.targets.openvino.quantize", portable_levels=SAFE_LEVELS),
    # XNNPACK and ruy widen to 16 bits before they multiply, so nothing overflows.
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


def require_faithful(target_name: str, processor: str) -> None:
    """Refuses to measure here what is made for other processors than this one.

    Raises:
        InputError: if this machine's answers would not be those of the machine that the file is for.
        UnknownNameError: if there is no such kind of processor.
    """
    if get_int8_target(target_name).made_for(processor) == VNNI and overflows():
        raise InputError(
            "A file for processors with VNNI cannot be evaluated here, where products of 8 bits may overflow: make a "
            "portable one (--processor portable), leave the evaluation out, or evaluate on a processor with VNNI."
        )
