"""What a scheme does to the Keras model before a target's own quantizer gets it."""

from collections.abc import Collection
from typing import Any

import numpy as np

from repvgg.quantization.correction import corrected
from repvgg.quantization.equalize import equalize
from repvgg.quantization.schemes import Scheme


def equalized(model: Any, images: np.ndarray, scheme: Scheme) -> Any:
    """The deployed model with equalized channels, as `scheme` says; the function stays."""
    if scheme.equalize == "none":
        return model
    return equalize(
        model,
        images if scheme.equalize == "noise" else None,
        per_channel=scheme.per_channel,
        levels=scheme.weight_levels,
    )


def prepare(model: Any, images: np.ndarray, scheme: Scheme, float_layers: Collection[str] = ()) -> Any:
    """The deployed model in float32 with equalized channels and with weights on their grids, as `scheme` says.

    Args:
        float_layers: names of layers that will not be quantized.
    """
    model = equalized(model, images, scheme)
    if scheme.rounding != "nearest":
        model = corrected(
            model,
            images,
            per_channel=scheme.per_channel,
            levels=scheme.weight_levels,
            gptq=scheme.rounding == "gptq",
            float_layers=float_layers,
        )
    return model
