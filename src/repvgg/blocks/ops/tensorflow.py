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
        images = tf.transpose(inputs, (0, 2, 3, 1))
        outputs = conv2d(images, kernel, strides, dilation_rate, groups, "channels_last", padded)
        return tf.transpose(outputs, (0, 3, 1, 2))
    sides = tuple(kernel.shape[:2])
    spatial_first = data_format == "channels_first"
    layout = "NCHW" if spatial_first else "NHWC"
    if sides == (1, 1) and strides > 1:
        # A strided 1x1 convolution of few channels corrupts the heap in oneDNN's backward pass; taking every second
        # pixel first is the same mathematics. A pooling window of one pixel does that five times faster than a slice.
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
    if groups > 1 and not _grouped_gradient_is_native(kernel.dtype.name):
        axis = 1 if spatial_first else -1
        pairs = zip(tf.split(inputs, groups, axis), tf.split(kernel, groups, -1), strict=True)
        parts = [tf.nn.conv2d(x, k, strides, padding, layout, dilation_rate) for x, k in pairs]
        return tf.concat(parts, axis)
    return tf.nn.conv2d(inputs, kernel, strides, padding, layout, dilation_rate)


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
