"""From a Keras model to one that eight bits harm little: calibration, equalization, rounding, fake quantization.

Knows no format; `repvgg.targets` has each format's own quantizer, `repvgg.exporting.int8` the search for a good scheme.
"""

from repvgg.quantization.calibration import calibration_images
from repvgg.quantization.equalize import equalize
from repvgg.quantization.scaling import scale_channels
from repvgg.quantization.schemes import SCHEMES, Scheme
from repvgg.quantization.sensitivity import LayerRow, layer_rows

__all__ = [
    "SCHEMES",
    "LayerRow",
    "Scheme",
    "calibration_images",
    "equalize",
    "layer_rows",
    "scale_channels",
]
