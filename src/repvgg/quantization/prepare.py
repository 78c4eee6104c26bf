"""What a scheme does to the Keras model before a target's own quantizer gets it."""

from typing import Any

import numpy as np

from repvgg.quantization.bias_correction import correct_biases
from repvgg.quantization.equalize import equalize
from repvgg.quantization.schemes import Scheme


def prepare(model: Any, images: np.ndarray, scheme: Scheme) -> Any:
    """The deployed model in float32 with equalized channels and with weights on their grids, as `scheme` says."""
    if scheme.equalize != "none":
        model = equalize(model, images if scheme.equalize == "activations" else None)
    if scheme.rounding != "nearest":
        compensate = scheme.rounding == "compensated"
        model = correct_biases(model, images, per_channel=scheme.per_channel, compensate=compensate)
    return model
