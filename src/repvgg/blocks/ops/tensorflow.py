"""TensorFlow: explicit padding only where the stride is above 1, native grouped convolution, fused normalization."""

from collections.abc import Callable
from functools import cache
from typing import Any

import tensorflow as tf

Tensor = Any

IMAGE_CHANNELS = 4
"""What has no more channels than this is taken for images."""


def conv2d(
    inputs: Tensor, kernel: Tensor, strides: int, dilation_rate: int, groups: int, data_format: str, padded: bool
) -> Tensor:
    if data_format == "channels_first" and not _has_gpu():
        # TensorFlow's CPU kernels know NHWC only.
        return _channels_first(
            conv2d(_channels_last(inputs), kernel, strides, dilation_rate, groups, "channels_last", padded)
        )
    sides = tuple(kernel.shape[:2])
    spatial_first = data_format == "channels_first"
    layout = "NCHW" if spatial_first else "NHWC"
    if sides == (1, 1) and strides > 1:
        # A strided 1x1 convolution of few channels corrupts the heap in oneDNN's backward pass; taking every second
        # pixel first is the same mathematics.
        # A pooling window of one pixel does that five times faster than a slice.
        inputs = tf.nn.avg_pool2d(inputs, ksize=1, strides=strides, padding="VALID", data_format=layout)
        strides = 1
    padding: Any = "SAME" if padded else "VALID"
    if strides > 1 and padded:
        # "SAME" pads bottom and right only when the size is even.
        rows, columns = ([dilation_rate * (side // 2)] * 2 for side in sides)
        none = [0, 0]
        padding = [none, none, rows, columns] if spatial_first else [none, rows, columns, none]
        if not _has_gpu() and (kernel.shape[2] > IMAGE_CHANNELS or groups > 1):
            # oneDNN has no input gradient for explicit padding, and TensorFlow's own takes up to ten times as long and
            # knows no groups. Images need no gradient, so there the padding is left to the convolution.
            inputs = tf.pad(inputs, padding)
            padding = "VALID"
    if groups == kernel.shape[3] > 1 and kernel.shape[2] == 1 and not (spatial_first and dilation_rate > 1):
        kernel = tf.transpose(kernel, (0, 1, 3, 2))
        steps = [1, 1, strides, strides] if spatial_first else [1, strides, strides, 1]
        return tf.nn.depthwise_conv2d(inputs, kernel, steps, padding, layout, [dilation_rate] * 2)
    if groups > 1 and not _grouped_gradient_is_native(kernel.dtype.name):
        axis = 1 if spatial_first else -1
        pairs = zip(tf.split(inputs, groups, axis), tf.split(kernel, groups, -1), strict=True)
        parts = [tf.nn.conv2d(x, k, strides, padding, layout, dilation_rate) for x, k in pairs]
        return tf.concat(parts, axis)
    return tf.nn.conv2d(inputs, kernel, strides, padding, layout, dilation_rate)


def patches(inputs: Tensor, size: int, strides: int) -> Tensor:
    # A convolution that copies: TensorFlow's own operation takes ten times as long.
    count = size * size * inputs.shape[-1]
    copying = tf.reshape(tf.eye(count, dtype=inputs.dtype), (size, size, inputs.shape[-1], count))
    return conv2d(inputs, copying, strides, 1, 1, "channels_last", padded=True)


def pointwise(inputs: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    return tf.nn.bias_add(tf.nn.conv2d(inputs, matrix[None, None], 1, "VALID"), bias)


def stock_layers_run_channels_first() -> bool:
    # TensorFlow's own CPU kernels know channels last only, and Keras turns nothing.
    return has_onednn()


def merging_pays() -> bool:
    # A GPU has memory enough to spare, and fuses normalizations.
    return not _has_gpu()


@tf.custom_gradient
def channel_moments(inputs: Tensor) -> tuple[tuple[Tensor, Tensor], Callable[[Tensor, Tensor], Tensor]]:
    channels = inputs.shape[-1]
    count = tf.cast(tf.size(inputs) // channels, inputs.dtype)
    # oneDNN adds the pixels up on the way, where a reduction would read them once more.
    mean = tf.raw_ops.BiasAddGrad(out_backprop=inputs) / count
    # A kernel's gradient is what a product with the transposed pixels is, and shares the pixels out among the threads.
    products = tf.raw_ops.Conv2DBackpropFilter(
        input=inputs, filter_sizes=[1, 1, channels, channels], out_backprop=inputs, strides=[1] * 4, padding="VALID"
    )
    covariance = products[0, 0] / count - mean[:, None] * mean

    def gradient(of_mean: Tensor, of_covariance: Tensor) -> Tensor:
        # TensorFlow would make two products of this, and add them.
        both = of_covariance + tf.transpose(of_covariance)
        return pointwise(inputs, both / count, (of_mean - tf.linalg.matvec(both, mean)) / count)

    return (mean, covariance), gradient


def batch_norm_training(
    inputs: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    epsilon: float,
    data_format: str,
) -> tuple[Tensor, Tensor, Tensor]:
    if inputs.dtype == tf.float64:
        # The fused operation stops at float32.
        axes = [0, 2, 3] if data_format == "channels_first" else [0, 1, 2]
        batch_mean, batch_variance = tf.nn.moments(inputs, axes)
        outputs = batch_norm_inference(inputs, gamma, beta, batch_mean, batch_variance, epsilon, data_format)
        count = tf.cast(tf.size(inputs) / tf.size(batch_mean), tf.float64)
        unbiased = batch_variance * count / tf.maximum(count - 1, 1)
        return (
            outputs,
            mean * momentum + batch_mean * (1 - momentum),
            variance * momentum + unbiased * (1 - momentum),
        )
    if data_format == "channels_first" and not has_onednn():
        # Without oneDNN a CPU has no such operation for channels first.
        outputs, *statistics = batch_norm_training(
            _channels_last(inputs), gamma, beta, mean, variance, momentum, epsilon, "channels_last"
        )
        return _channels_first(outputs), statistics[0], statistics[1]
    result = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        # The operation blends the running statistics itself, which saves six small ones for every normalization.
        exponential_avg_factor=1 - momentum,
        data_format="NCHW" if data_format == "channels_first" else "NHWC",
        is_training=True,
    )
    return result.y, result.batch_mean, result.batch_variance


def batch_norm_inference(
    inputs: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float, data_format: str
) -> Tensor:
    if inputs.dtype == tf.float64:
        shape = (1, -1, 1, 1) if data_format == "channels_first" else (1, 1, 1, -1)
        parts = (tf.reshape(part, shape) for part in (mean, variance, beta, gamma))
        return tf.nn.batch_normalization(inputs, *parts, epsilon)
    if data_format == "channels_first" and not has_onednn():
        outputs = batch_norm_inference(_channels_last(inputs), gamma, beta, mean, variance, epsilon, "channels_last")
        return _channels_first(outputs)
    return tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        data_format="NCHW" if data_format == "channels_first" else "NHWC",
        is_training=False,
    ).y


def gradients(function: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> list[Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outcome = function(tensors)
    found: list[Tensor] = tape.gradient(outcome, tensors)
    return found


def _channels_last(inputs: Tensor) -> Tensor:
    return tf.transpose(inputs, (0, 2, 3, 1))


def _channels_first(inputs: Tensor) -> Tensor:
    return tf.transpose(inputs, (0, 3, 1, 2))


def has_onednn() -> bool:
    """Whether oneDNN computes; on a GPU others do, no slower."""
    return _grouped_gradient_is_native("float32")


@cache
def _has_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


@cache
def _grouped_gradient_is_native(dtype: str) -> bool:
    """Whether this build computes the gradient of a grouped convolution itself: GPUs do; CPUs only through oneDNN.

    Asked once for each dtype, by trying: oneDNN's presence depends on the build, the processor and an environment
    variable, and there is no call that tells. Without it, the groups are convolved one by one.
    """
    if _has_gpu():
        return True
    with tf.init_scope():
        # The operation itself: a tape records nothing inside `init_scope`.
        kernel, outputs = tf.ones((3, 3, 2, 4), dtype), tf.ones((1, 4, 4, 4), dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=outputs.shape, filter=kernel, out_backprop=outputs, strides=[1, 1, 1, 1], padding="SAME"
            )
        except tf.errors.InvalidArgumentError:
            return False
    return True
