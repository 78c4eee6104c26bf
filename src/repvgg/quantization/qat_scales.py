"""The integer grids of a network as data: what quantization-aware training hands to the writers of files."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from repvgg.base.errors import FileError


@dataclass(frozen=True)
class LayerScales:
    """The grids of one layer; a real number is scale * (integer - zero point).

    Attributes:
        input_scale, input_zero_point: of what the layer reads, in unsigned integers.
        weight: scale of the kernel, or one for each output channel; the integers are signed and their zero point is 0.
            None for a layer without weights, such as pooling.
    """

    input_scale: float
    input_zero_point: int
    weight: tuple[float, ...] | None = None


@dataclass(frozen=True)
class QuantizationScales:
    """The grids of all quantized layers by name; layers that are not named stay in float.

    Attributes:
        weight_bits: kernels have the integers from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1.
        activation_bits: inputs have those from 0 to 2^bits - 1.
    """

    layers: Mapping[str, LayerScales]
    weight_bits: int = 8
    activation_bits: int = 8

    def to_json(self) -> str:
        """A JSON object; `from_json` reads it back, digit for digit."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "QuantizationScales":
        """Reads what `to_json` wrote.

        Raises:
            FileError: if it is not such a text.
        """
        try:
            fields = json.loads(text)
            layers = {name: _layer(entry) for name, entry in fields.pop("layers").items()}
            return cls(layers=layers, **fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"These are not quantization scales as `to_json` writes them: {error!r}.") from error


def _layer(entry: dict[str, Any]) -> LayerScales:
    weight = entry["weight"]
    return LayerScales(
        float(entry["input_scale"]),
        int(entry["input_zero_point"]),
        None if weight is None else tuple(float(scale) for scale in weight),
    )
