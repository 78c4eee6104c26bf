"""Folding parallel linear branches into one kernel and one bias: the only place where it is done.

Kernels are HWIO: (height, width, input channels / groups, output channels). Only arithmetic operators are used, so the
same lines serve NumPy in float64 (exact conversion) and the tensors of any Keras backend (differentiable). A constant
that enters the arithmetic goes through `convert`, which makes it the caller's kind of tensor.

Source: Ding et al., arXiv 2101.03697, section 3.3 and figure 4; the outer normalization: Chu et al., arXiv 2212.01593.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
"""A NumPy array or a backend tensor; both know + - * / and **."""

Convert = Callable[[np.ndarray], Array]


@dataclass(frozen=True)
class BatchNorm:
    """Inference-time batch normalization: y = gamma (x - mean) / sqrt(variance + epsilon) + beta, each (C,)."""

    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    epsilon: float

    @property
    def scale(self) -> Array:
        """What the input is multiplied by, shape (C,)."""
        return self.gamma / (self.variance + self.epsilon) ** 0.5

    @property
    def shift(self) -> Array:
        """What is then added, shape (C,)."""
        return self.beta - self.mean * self.scale


@dataclass(frozen=True)
class Linear:
    """A convolution with bias: `kernel` (H, W, I/groups, O) and `bias` (O,), or the number 0 where there is none."""

    kernel: Array
    bias: Array


def fold_batch_norm(kernel: Array, norm: BatchNorm) -> Linear:
    """A convolution without bias followed by batch normalization, as one convolution."""
    return Linear(kernel * norm.scale, norm.shift)


def fold_outer_batch_norm(inner: Linear, norm: BatchNorm) -> Linear:
    """A convolution with bias followed by batch normalization, as one convolution."""
    return Linear(inner.kernel * norm.scale, inner.bias * norm.scale + norm.shift)


def expand_kernel(kernel: Array, size: int, convert: Convert = np.asarray) -> Array:
    """A (1, 1, I, O) kernel as the centre of a (size, size, I, O) one.

    Exact only where both read the same centre pixel, that is with symmetric zero padding.
    """
    centre = np.zeros((size, size, 1, 1))
    centre[size // 2, size // 2] = 1
    return kernel * convert(centre)


def identity_kernel(channels: int, groups: int = 1, size: int = 3) -> np.ndarray:
    """The convolution kernel that returns its input: kernel[centre, centre, i % (C / groups), i] = 1."""
    width = channels // groups
    kernel = np.zeros((size, size, width, channels))
    outputs = np.arange(channels)
    kernel[size // 2, size // 2, outputs % width, outputs] = 1
    return kernel


def fold_identity(norm: BatchNorm, channels: int, groups: int, size: int = 3, convert: Convert = np.asarray) -> Linear:
    """Batch normalization of the input itself, as one convolution."""
    return Linear(convert(identity_kernel(channels, groups, size)) * norm.scale, norm.shift)


def add_branches(branches: Iterable[Linear]) -> Linear:
    """The sum of convolutions that read the same input with kernels of one shape, as one convolution."""
    first, *others = branches
    kernel, bias = first.kernel, first.bias
    for branch in others:
        kernel = kernel + branch.kernel
        bias = bias + branch.bias
    return Linear(kernel, bias)
