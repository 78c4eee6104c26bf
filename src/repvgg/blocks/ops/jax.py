"""JAX: XLA fuses the elementwise work by itself."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tensor = Any


def conv2d(
    inputs: Tensor, kernel: Tensor, strides: int, dilation_rate: int, groups: int, data_format: str, padded: bool
) -> Tensor:
    rows, columns = (dilation_rate * (side // 2) if padded else 0 for side in kernel.shape[:2])
    layout = "NCHW" if data_format == "channels_first" else "NHWC"
    return jax.lax.conv_general_dilated(
        inputs,
        kernel,
        window_strides=(strides, strides),
        padding=((rows, rows), (columns, columns)),
        rhs_dilation=(dilation_rate, dilation_rate),
        dimension_numbers=(layout, "HWIO", layout),
        feature_group_count=groups,
    )


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
    axes = (0, 2, 3) if data_format == "channels_first" else (0, 1, 2)
    # Statistics of 16-bit inputs are taken in the dtype of the parameters, as the fused operations of the others do.
    wide = inputs.astype(gamma.dtype)
    batch_mean, batch_variance = jnp.mean(wide, axes), jnp.var(wide, axes)
    outputs = batch_norm_inference(inputs, gamma, beta, batch_mean, batch_variance, epsilon, data_format)
    count = inputs.size // batch_mean.size
    unbiased = batch_variance * (count / max(count - 1, 1))
    return (
        outputs,
        mean * momentum + batch_mean * (1 - momentum),
        variance * momentum + unbiased * (1 - momentum),
    )


def batch_norm_inference(
    inputs: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float, data_format: str
) -> Tensor:
    shape = (1, -1, 1, 1) if data_format == "channels_first" else (1, 1, 1, -1)
    scale = gamma * jax.lax.rsqrt(variance + epsilon)
    outputs = (inputs - mean.reshape(shape)) * scale.reshape(shape) + beta.reshape(shape)
    return outputs.astype(inputs.dtype)


def stock_layers_run_channels_first() -> bool:
    return True


def merging_pays() -> bool:
    # XLA fuses normalizations with what stands around them by itself.
    return False


def gradients(function: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> list[Tensor]:
    found: list[Tensor] = jax.grad(function)(tensors)
    return found
