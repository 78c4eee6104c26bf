"""INT8 that keeps its accuracy: calibration, schemes, and the search for one that is good enough."""

from repvgg.quantization.artifact import Int8Options, Int8Result, write_int8
from repvgg.quantization.calibration import calibration_images
from repvgg.quantization.equalize import equalize
from repvgg.quantization.int8 import INT8_TARGETS
from repvgg.quantization.report import Attempt, Int8Report
from repvgg.quantization.scaling import scale_channels
from repvgg.quantization.schemes import SCHEMES, Scheme
from repvgg.quantization.search import find_int8
from repvgg.quantization.sensitivity import LayerRow, layer_rows

__all__ = [
    "INT8_TARGETS",
    "SCHEMES",
    "Attempt",
    "Int8Options",
    "Int8Report",
    "Int8Result",
    "LayerRow",
    "Scheme",
    "calibration_images",
    "equalize",
    "find_int8",
    "layer_rows",
    "scale_channels",
    "write_int8",
]
