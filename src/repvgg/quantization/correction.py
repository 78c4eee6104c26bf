"""Weights and biases that make up for what eight bits do, layer by layer from the input on.

Rounding moves each weight a little; over many inputs the errors do not cancel, and a whole channel shifts. So it is
with activations, most of which are small and become 0. Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019, here with measured means. `gptq.py` says what is done to weights.
"""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from repvgg.base.processor import LEVELS
from repvgg.quantization.gptq import gptq_weights, least_squares_weights
from repvgg.quantization.moments import input_moments
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
    that_fit,
)
from repvgg.runners.keras import to_numpy

IMAGES = 128
"""At most. With half of them a trained RepVGG-A0 had 1 dB more noise, with twice as many 0.5 dB less."""

TENSOR_BYTES = 2**30
"""All images go through the network at once, so their number is limited by the largest tensor of values."""


def corrected(
    model: Any,
    images: np.ndarray,
    *,
    per_channel: bool,
    levels: int = LEVELS,
    gptq: bool = False,
    float_layers: Collection[str] = (),
) -> Any:
    """A copy of `model` whose weights lie on their grids, with everything before a layer corrected already.

    In all layers the mean of each output channel over `images`, before the activation, becomes what it is in `model`,
    with what the layer reads in eight bits.

    Args:
        images: (N, H, W, C) in float32, as the network takes them.
        per_channel, levels: which grids the weights are rounded to.
        gptq: reconstruct and round weights as `gptq.py` does, not each weight to the nearest point.
        float_layers: names of layers whose weights and inputs are not rounded.
    """
    limits = input_limits(model, images)
    images = that_fit(Steps(model), images, IMAGES, TENSOR_BYTES)
    copy = copied(model)
    wanted: dict[str, tuple[Tensor, np.ndarray]] = {}

    def remember(step: Step, inputs: list[Tensor]) -> Tensor:
        if not step.weighted:
            return apply(step, inputs)
        outputs = linear_part(step, inputs)
        wanted[step.name] = inputs[0], _mean(outputs)
        return step.layer.activation(outputs)

    def correct(step: Step, inputs: list[Tensor]) -> Tensor:
        if not step.weighted:
            return apply(step, inputs)
        layer = step.layer
        wanted_input, wanted_mean = wanted.pop(step.name)
        in_float = step.name in float_layers
        if not in_float:
            inputs = rounded_input(step, inputs, limits)
        kernel = kernel_of(layer)
        if gptq:
            moments = input_moments(step, inputs[0], wanted_input)
            kernel = least_squares_weights(step, kernel, moments)
            if not in_float:
                kernel = gptq_weights(step, kernel, moments, per_channel=per_channel, levels=levels)
        elif not in_float:
            kernel = rounded_weights(kernel, per_channel=per_channel, levels=levels)
        assign(layer.kernel, kernel)
        outputs = linear_part(step, inputs)
        if layer.use_bias:
            shift = wanted_mean - _mean(outputs)
            assign(layer.bias, bias_of(layer) + shift)
            outputs = outputs + keras.ops.convert_to_tensor(shift, dtype=outputs.dtype)
        return layer.activation(outputs)

    # Step by step side by side, so that no more than a layer's values are kept of either.
    for _ in zip(Steps(model).run(images, remember), Steps(copy).run(images, correct), strict=True):
        pass
    return copy


def _mean(outputs: Tensor) -> np.ndarray:
    """Over everything but the channels, in float64."""
    array = to_numpy(outputs)
    mean: np.ndarray = array.reshape(-1, array.shape[-1]).mean(axis=0, dtype=np.float64)
    return mean
