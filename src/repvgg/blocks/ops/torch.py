"""PyTorch: its own operations on a channels-last view, so that no data is moved."""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

Tensor = Any


def conv2d(
    inputs: Tensor, kernel: Tensor, strides: int, dilation_rate: int, groups: int, data_format: str, padded: bool
) -> Tensor:
    if data_format == "channels_last":
        outputs = conv2d(inputs.permute(0, 3, 1, 2), kernel, strides, dilation_rate, groups, "channels_first", padded)
        return outputs.permute(0, 2, 3, 1)
    sides = tuple(kernel.shape[:2])
    if sides == (1, 1) and strides > 1:
        # A strided 1x1 convolution of few channels corrupts the heap in oneDNN's channels-last backward pass; reading
        # every second pixel first is the same mathematics.
        inputs = inputs[:, :, ::strides, ::strides]
        strides = 1
    return functional.conv2d(
        inputs,
        kernel.permute(3, 2, 0, 1),
        stride=strides,
        padding=tuple(dilation_rate * (side // 2) for side in sides) if padded else 0,
        dilation=dilation_rate,
        groups=groups,
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
    # `batch_norm` blends in place, and Keras's variables are assigned to.
    mean, variance = mean.detach().clone(), variance.detach().clone()
    outputs = functional.batch_norm(
        _channels_second(inputs, data_format),
        mean,
        variance,
        gamma,
        beta,
        training=True,
        momentum=1 - momentum,
        eps=epsilon,
    )
    return _channels_back(outputs, data_format), mean, variance


def batch_norm_inference(
    inputs: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, variance: Tensor, epsilon: float, data_format: str
) -> Tensor:
    outputs = functional.batch_norm(
        _channels_second(inputs, data_format), mean, variance, gamma, beta, training=False, eps=epsilon
    )
    return _channels_back(outputs, data_format)


def _channels_second(inputs: Tensor, data_format: str) -> Tensor:
    return inputs if data_format == "channels_first" else inputs.permute(0, 3, 1, 2)


def _channels_back(outputs: Tensor, data_format: str) -> Tensor:
    return outputs if data_format == "channels_first" else outputs.permute(0, 2, 3, 1)


def stock_layers_run_channels_first() -> bool:
    return True


def merging_pays() -> bool:
    # PyTorch fuses no additions into convolutions that are trained.
    return False


def gradients(function: Callable[[list[Tensor]], Tensor], tensors: list[Tensor]) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with torch.enable_grad():
        return list(torch.autograd.grad(function(leaves), leaves))
