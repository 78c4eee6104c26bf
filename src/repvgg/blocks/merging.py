"""The first block's branches in training, as one convolution.

Images have so few channels that what a 3x3 kernel sees at one place is a short vector, a patch, and every branch of a
block is a matrix W on it. The mean of what a branch gives follows from the mean patch, and the variance from the
covariance C of patches, as the diagonal of W^T C W; so its batch normalization is known before anything has been
computed. All branches are then one matrix, made in the step. That spares some twenty passes over what are the largest
activations of the network. In later blocks the same with the 1x1 and identity branches takes as long as it spares:
docs/speed.md.

The gradients are those of the plain form, by way of mean and covariance.
"""

from collections.abc import Sequence
from typing import Any

import keras

from repvgg.blocks import ops
from repvgg.blocks.branches import BatchNorm, ConvBatchNorm
from repvgg.core import fold

Tensor = Any

PATCH = 36
"""Numbers in a patch of images, up to which its covariance is cheaper than normalizing what is made of it."""

POSITIONS = 4
"""How many times as many positions as numbers a covariance has to be made of: else it is not worth its product."""

USUAL_BATCH = 32
"""Where the number of images is not known."""


def sum_of_branches(layers: Sequence[Any], inputs: Tensor, *, training: bool) -> Tensor:
    """The sum of what the branches' layers make of `inputs`; None stands for the input itself."""
    convolutions = [layer for layer in layers if isinstance(layer, ConvBatchNorm)]
    if not (training and convolutions and _can_merge(layers, convolutions, inputs)):
        return _sum(layers, inputs, training=training)
    strides, channels = convolutions[0].strides, int(inputs.shape[-1])
    positions = _positions(inputs, strides) / POSITIONS
    size = max(_size(layer) for layer in layers)
    if channels * size**2 > min(PATCH, positions):
        return _sum(layers, inputs, training=training)
    return _merged(layers, ops.patches(inputs, size, strides), size, channels)


def _sum(layers: Sequence[Any], inputs: Tensor, *, training: bool) -> Tensor:
    first, *others = (inputs if layer is None else layer(inputs, training=training) for layer in layers)
    return sum(others, first)


def _size(layer: Any) -> int:
    return max(layer.kernel_size) if isinstance(layer, ConvBatchNorm) else 1


def _can_merge(layers: Sequence[Any], convolutions: Sequence[Any], inputs: Tensor) -> bool:
    return (
        all(isinstance(layer, ConvBatchNorm | BatchNorm) for layer in layers)
        and all(
            layer.groups == 1 and layer.dilation_rate == 1 and layer.data_format == "channels_last"
            for layer in convolutions
        )
        # Covariances of 16-bit numbers would be off by more than the network bears.
        and keras.backend.standardize_dtype(inputs.dtype) == convolutions[0].variable_dtype
        and ops.merging_pays()
    )


def _positions(inputs: Tensor, strides: int) -> int:
    """Pixels of the output in a batch; 0 if the size is not known."""
    batch, height, width, _ = inputs.shape
    return (batch or USUAL_BATCH) * -(-(height or 0) // strides) * -(-(width or 0) // strides)


def _merged(layers: Sequence[Any], patches: Tensor, size: int, channels: int) -> Tensor:
    """What the layers make of patches (N, H, W, size * size * channels), all at once."""
    mean, covariance = ops.channel_moments(patches)
    count = keras.ops.cast(keras.ops.size(patches), mean.dtype) / patches.shape[-1]
    matrix: Tensor = 0
    bias: Tensor = 0
    for layer in layers:
        weights, norm = _matrix(layer, size, channels, mean.dtype)
        scale, shift = norm.scale_and_shift(
            keras.ops.reshape(keras.ops.matmul(mean[None], weights), (-1,)),
            keras.ops.sum(weights * keras.ops.matmul(covariance, weights), axis=0),
            count,
        )
        matrix, bias = matrix + weights * scale, bias + shift
    return ops.pointwise(patches, matrix, bias)


def _matrix(layer: Any, size: int, channels: int, dtype: Any) -> tuple[Tensor, BatchNorm]:
    """The layer's linear part as a matrix (size * size * channels, filters), and its normalization."""

    def convert(array: Any) -> Tensor:
        return keras.ops.convert_to_tensor(array, dtype=dtype)

    if isinstance(layer, BatchNorm):
        kernel, norm = convert(fold.identity_kernel(channels, 1, size)), layer
    else:
        kernel, norm = layer.kernel.value, layer.norm
        kernel = fold.expand_kernel(kernel, size, convert)
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1])), norm
