"""The layers of quantization-aware training. They live with the blocks, so that files that hold them always load."""

from repvgg.blocks.rounded import (
    QUANTIZED,
    FakeQuantization,
    Precision,
    QuantizedBlock,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedGlobalAveragePooling2D,
)

__all__ = [
    "QUANTIZED",
    "FakeQuantization",
    "Precision",
    "QuantizedBlock",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedGlobalAveragePooling2D",
]
