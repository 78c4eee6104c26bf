"""Taking the mean error of eight bits out of the biases.

Rounding moves each weight a little; over many inputs the errors do not cancel, and a whole channel shifts. So it is
with activations, most of which are small and become 0. Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, here with measured means.
"""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from repvgg.quantization.compensation import compensated_weights
from repvgg.quantization.ranges import input_limits, rounded_input
from repvgg.quantization.rounding import rounded_weights
from repvgg.quantization.steps import (
    Step,
    Steps,
    Tensor,
    apply,
    assign,
    bias_of,
    copied,
    kernel_of,
    linear_part,
    spread,
)
from repvgg.runners.keras import to_numpy

IMAGES = 64
"""All of them go through the network at once. Both means are of the same images, so few will do."""


def correct_biases(
    model: Any, images: np.ndarray, *, per_channel: bool, compensate: bool = False, float_layers: Collection[str] = ()
) -> Any:
    """A copy of `model` whose weights lie on their 8-bit grids and whose biases make up for it.

    Layer by layer from the input on: the mean of each output channel over `images`, before the activation, becomes
    what it is in `model`, with everything before the layer corrected already, and what each layer reads in eight bits.

    Args:
        images: (N, H, W, C) in float32, as the network takes them.
        per_channel: which grids the weights are rounded to.
        compensate: round as `compensated_weights` does, not each weight to the nearest point.
        float_layers: names of layers whose weights and inputs are not rounded.
    """
    limits = input_limits(model, images)
    images = spread(images, IMAGES)
    wanted = _channel_means(model, images)
    corrected = copied(model)

    def call(step: Step, inputs: list[Tensor]) -> Tensor:
        if not step.weighted:
            return apply(step, inputs)
        layer = step.layer
        if step.name not in float_layers:
            inputs = rounded_input(step, inputs, limits)
            rounded = (
                compensated_weights(step, inputs[0], per_channel=per_channel)
                if compensate
                else rounded_weights(kernel_of(layer), per_channel=per_channel)
            )
            assign(layer.kernel, rounded)
        outputs = linear_part(step, inputs)
        if layer.use_bias:
            shift = wanted[step.name] - _mean(outputs)
            assign(layer.bias, bias_of(layer) + shift)
            outputs = outputs + keras.ops.convert_to_tensor(shift, dtype=outputs.dtype)
        return layer.activation(outputs)

    for _ in Steps(corrected).run(images, call):
        pass
    return corrected


def _channel_means(model: Any, images: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of each output channel (C,), before the activation, of every convolution and dense layer."""
    means: dict[str, np.ndarray] = {}

    def call(step: Step, inputs: list[Tensor]) -> Tensor:
        if not step.weighted:
            return apply(step, inputs)
        outputs = linear_part(step, inputs)
        means[step.name] = _mean(outputs)
        return step.layer.activation(outputs)

    for _ in Steps(model).run(images, call):
        pass
    return means


def _mean(outputs: Tensor) -> np.ndarray:
    """Over everything but the channels, in float64."""
    array = to_numpy(outputs)
    mean: np.ndarray = array.reshape(-1, array.shape[-1]).mean(axis=0, dtype=np.float64)
    return mean
