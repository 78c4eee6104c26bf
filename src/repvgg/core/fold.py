"""Folding parallel and chained linear steps into one kernel and one bias: the only place where it is done.

Kernels are HWIO: (height, width, input channels / groups, output channels). Only arithmetic operators are used, so the
same lines serve NumPy in float64 (exact conversion) and the tensors of any Keras backend (differentiable). A constant
that enters the arithmetic goes through `convert`, which makes it the caller's kind of tensor.

Source: Ding et al., arXiv 2101.03697, section 3.3 and figure 4; chains and averages: Ding et al., arXiv 2103.13425,
section 3.2; the outer normalization: Chu et al., arXiv 2212.01593.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any
"""A NumPy array or a backend tensor; both know + - * / and **."""

Convert = Callable[[np.ndarray], Array]
Size = int | tuple[int, int]
"""The side of a square kernel, or height and width."""


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


def fold_scale(inner: Linear, factor: Array) -> Linear:
    """A convolution followed by a factor for each channel, as one convolution."""
    return Linear(inner.kernel * factor, inner.bias * factor)


def expand_kernel(kernel: Array, size: Size, convert: Convert = np.asarray) -> Array:
    """A kernel as the centre of a larger one, with zeros around it; all sides are odd.

    Exact only where both read the same centre pixel, that is with symmetric zero padding.
    """
    height, width = _sides(size)
    rows, columns = kernel.shape[:2]
    return _placed(kernel, (height, width), ((height - rows) // 2, (width - columns) // 2), convert)


def _placed(kernel: Array, size: tuple[int, int], corner: tuple[int, int], convert: Convert) -> Array:
    """`kernel` with its first element at `corner` of a kernel of zeros."""
    if tuple(kernel.shape[:2]) == size:
        return kernel
    total = None
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            place = np.zeros((*size, 1, 1))
            place[corner[0] + row, corner[1] + column] = 1
            part = kernel[row : row + 1, column : column + 1] * convert(place)
            total = part if total is None else total + part
    return total


def identity_kernel(channels: int, groups: int = 1, size: Size = 3) -> np.ndarray:
    """The convolution kernel that returns its input: kernel[centre, centre, i % (C / groups), i] = 1."""
    height, width = _sides(size)
    per_group = channels // groups
    kernel = np.zeros((height, width, per_group, channels))
    outputs = np.arange(channels)
    kernel[height // 2, width // 2, outputs % per_group, outputs] = 1
    return kernel


def average_kernel(channels: int, groups: int, size: Size) -> np.ndarray:
    """The convolution kernel that gives each channel's mean over a window; zeros beyond the border are counted."""
    height, width = _sides(size)
    return np.broadcast_to(
        identity_kernel(channels, groups, 1) / (height * width), (height, width, channels // groups, channels)
    )


def fold_identity(norm: BatchNorm, channels: int, groups: int, size: Size = 3, convert: Convert = np.asarray) -> Linear:
    """Batch normalization of the input itself, as one convolution."""
    return Linear(convert(identity_kernel(channels, groups, size)) * norm.scale, norm.shift)


def compose(first: Linear, second: Linear, channels: int, groups: int, convert: Convert = np.asarray) -> Linear:
    """Two convolutions one after the other as one, whose kernel is as large as both together.

    Args:
        channels: between the two.
        groups: of both.

    Exact where the zeros around the input stand before the first: `second` reads there what `first` makes of them.
    """
    kernel = second.kernel
    if groups > 1:
        # Every output's kernel over all channels in between, those of other groups at 0.
        width = channels // groups
        spread = np.equal.outer(np.arange(channels) % width, np.arange(width)).astype(np.float64)
        outputs = kernel.shape[3]
        own = np.equal.outer(np.arange(channels) // width, np.arange(outputs) // (outputs // groups))
        kernel = (convert(spread) @ kernel) * convert(own.astype(np.float64))
    rows, columns = first.kernel.shape[:2]
    size = (rows + kernel.shape[0] - 1, columns + kernel.shape[1] - 1)
    parts = [
        _placed(first.kernel[row, column] @ kernel, size, (row, column), convert)
        for row in range(rows)
        for column in range(columns)
    ]
    bias = second.bias
    if not isinstance(first.bias, int):
        through = first.bias[None, :] @ kernel
        for row in range(kernel.shape[0]):
            for column in range(kernel.shape[1]):
                bias = bias + through[row, column, 0]
    return Linear(sum(parts[1:], parts[0]), bias)


def _sides(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def add_branches(branches: Iterable[Linear]) -> Linear:
    """The sum of convolutions that read the same input with kernels of one shape, as one convolution."""
    first, *others = branches
    kernel, bias = first.kernel, first.bias
    for branch in others:
        kernel = kernel + branch.kernel
        bias = bias + branch.bias
    return Linear(kernel, bias)
