"""Convolution and batch normalization as PyTorch defines them, at each backend's full speed; and gradients.

`conv2d` pads symmetrically with zeros for odd and even sizes alike; `batch_norm` is one fused operation where the
backend has one. Keras's own operations are right in neither respect: `padding="same"` is lopsided when the stride is 2,
grouped convolutions go through XLA on TensorFlow's CPU, and normalization is a chain of elementwise operations there.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import keras

from repvgg.base.errors import InputError

Tensor = Any

_BACKENDS = {
    "tensorflow": "repvgg.blocks.ops.tensorflow",
    "jax": "repvgg.blocks.ops.jax",
    "torch": "repvgg.blocks.ops.torch",
}


class Normalized(NamedTuple):
    """Output of `batch_norm_training`: the tensor, and the running statistics after this batch, each (C,)."""

    outputs: Tensor
    mean: Tensor
    variance: Tensor


def _backend_operation(name: str) -> Callable[..., Any]:
    backend = keras.backend.backend()
    if backend not in _BACKENDS:
        raise InputError(
            f"RepVGG blocks run on the Keras backends {', '.join(_BACKENDS)}; the current one is '{backend}'. "
            "Set the environment variable KERAS_BACKEND before Python starts."
        )
    operation: Callable[..., Any] = getattr(import_module(_BACKENDS[backend]), name)
    return operation


def conv2d(
    inputs: Tensor,
    kernel: Tensor,
    *,
    strides: int = 1,
    dilation_rate: int = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    padded: bool = True,
) -> Tensor:
    """2-D convolution without bias, zero-padded so that the output has ceil(size / strides) pixels a side.

    Args:
        inputs: (N, H, W, C), or (N, C, H, W) if `data_format` is "channels_first".
        kernel: (height, width, C / groups, filters) with odd sides.
        padded: whether there is any padding.
    """
    return _backend_operation("conv2d")(inputs, kernel, strides, dilation_rate, groups, data_format, padded)


def batch_norm_training(
    inputs: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    momentum: float,
    epsilon: float,
    data_format: str = "channels_last",
) -> Normalized:
    """Normalizes with the statistics of this batch, and moves the running ones towards them.

    The share `momentum` of `mean` and `variance` is kept. The variance they move towards is the unbiased one (divided
    by n - 1), as in PyTorch.
    """
    operation = _backend_operation("batch_norm_training")
    parameters = _at_least_float32(gamma, beta, mean, variance)
    return Normalized(*operation(inputs, *parameters, momentum, epsilon, data_format))


def batch_norm_inference(
    inputs: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float,
    data_format: str = "channels_last",
) -> Tensor:
    """Normalizes with given statistics."""
    parameters = _at_least_float32(gamma, beta, mean, variance)
    return _backend_operation("batch_norm_inference")(inputs, *parameters, epsilon, data_format)


def _at_least_float32(*parameters: Tensor) -> list[Tensor]:
    """Fused normalization takes 16-bit images with parameters in 32 bits, whatever these are stored in."""
    half = ("float16", "bfloat16")
    return [
        keras.ops.cast(part, "float32") if keras.backend.standardize_dtype(part.dtype) in half else part
        for part in parameters
    ]


def stock_layers_run_channels_first() -> bool:
    """Whether Keras's own convolutions run with channels first; the ones here always do."""
    return bool(_backend_operation("stock_layers_run_channels_first")())


def merging_pays() -> bool:
    """Whether the backend is faster with `channel_moments` and one convolution than with several normalized ones."""
    return bool(_backend_operation("merging_pays")())


def channel_moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C), divided by the number of positions, of the pixels (N, H, W, C).

    The covariance is the mean of products less the product of means: where a channel's mean is m times its deviation,
    it loses a factor of m^2 in precision. After a ReLU, and for normalized images, m is about 1.
    """
    mean, covariance = _backend_operation("channel_moments")(inputs)
    return mean, covariance


def patches(inputs: Tensor, size: int, strides: int) -> Tensor:
    """What a (size, size) kernel sees of images (N, H, W, C) at each place: (N, H / strides, W / strides, size^2 C)."""
    return _backend_operation("patches")(inputs, size, strides)


def pointwise(inputs: Tensor, matrix: Tensor, bias: Tensor) -> Tensor:
    """The matrix (C, filters) and the bias (filters,) applied to each pixel (N, H, W, C)."""
    return _backend_operation("pointwise")(inputs, matrix, bias)


def gradients(function: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> list[Tensor]:
    """The gradient of a scalar with respect to each of the tensors that `function` makes it of."""
    found: list[Tensor] = _backend_operation("gradients")(function, tensors)
    return found
