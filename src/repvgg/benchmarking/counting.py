"""Parameters and multiplications of any functional Keras model, by the rule of `repvgg.models.cost`."""

import math
from dataclasses import dataclass
from typing import Any

import keras

from repvgg.models.cost import WINOGRAD_SHARE


@dataclass(frozen=True)
class Counted:
    """What a network costs for one image.

    Attributes:
        parameters: all weights, statistics of normalizations included, where these are not folded.
        macs: multiplications of convolutions and matrix products.
        winograd: the same with every 3x3 convolution of stride 1 as F(2x2, 3x3).
    """

    parameters: int
    macs: int
    winograd: float


def count_model(model: Any) -> Counted:
    """Counts a model of layers that are each called once, whose image size is fixed."""
    macs, winograd = 0, 0.0
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D | keras.layers.Dense):
            continue
        weights = math.prod(layer.kernel.shape)
        if isinstance(layer, keras.layers.Dense):
            own, share = weights, 1.0
        else:
            axes = slice(1, 3) if layer.data_format == "channels_last" else slice(2, 4)
            pixels = math.prod(layer.output.shape[axes])
            plain = layer.kernel_size == (3, 3) and layer.strides == (1, 1) and layer.dilation_rate == (1, 1)
            own, share = weights * pixels, WINOGRAD_SHARE if plain else 1.0
        macs += own
        winograd += own * share
    return Counted(model.count_params(), macs, winograd)
