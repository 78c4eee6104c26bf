"""What training a sum of branches with constant factors does to the one convolution that the sum is.

Each branch is linear in its kernel, so every step of its optimizer moves the folded kernel too, and by how much follows
from the factors. An optimizer that multiplies the gradient of a plain convolution accordingly trains it as if it were
the sum: constant-scale linear addition (CSLA). Data and arithmetic, without Keras.

Source: Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242, section 3
and appendix A.
"""

from collections.abc import Callable, Mapping
from typing import Final, Literal

import numpy as np

from repvgg.blocks.kind import BlockKind, Branch, Conv, Parameter
from repvgg.core import fold
from repvgg.core.architecture import BlockShape

UpdateRule = Literal["sgd", "adamw"]
UPDATE_RULES: Final[tuple[UpdateRule, ...]] = ("sgd", "adamw")

Scales = Mapping[str, fold.Array]
"""The factors of a block, (channels,) each, by path: 'conv3x3.scale1.scale'."""


def scale_parameters(kind: BlockKind, shape: BlockShape) -> list[Parameter]:
    """The factors that a sum of branches has."""
    return [parameter for parameter in kind.parameters(shape) if parameter.role == "scale"]


def gradient_multiplier(
    kind: BlockKind,
    shape: BlockShape,
    scales: Scales,
    rule: UpdateRule,
    convert: fold.Convert = np.asarray,
    ones: Callable[[tuple[int, ...]], fold.Array] = np.ones,
) -> fold.Array:
    """What multiplies the gradient of a plain kernel, elementwise; as large as the kernel.

    A factor s makes the gradient of its branch's kernel s times as large, and the step of that kernel counts s times in
    the sum: s^2 for SGD. AdamW takes steps of the same length whatever the gradient's, so there it is |s|, and the step
    is multiplied. A branch that is the input times a factor has that factor to train, whose gradient is the one of the
    kernel's diagonal: 1.

    The authors' AdamW adds factors up with their signs, which is the same where all are positive. Otherwise it takes
    magnitudes for the answers to be those of the sum.

    Args:
        kind: of the sum, which a plain block names as `trained_as`.
        convert, ones: make constants of the kind that `scales` are.
    """
    alone = _alone(kind, shape)

    def weights(path: str) -> fold.Array:
        if path.endswith("kernel"):
            return ones(next(one.shape for one in kind.parameters(shape) if one.path == path))
        scale = scales[path]
        if path in alone:
            return ones(tuple(scale.shape))
        return scale**2 if rule == "sgd" else abs(scale)

    return kind.fold_branches(weights, shape, convert).kernel


def summed_kernel(kind: BlockKind, shape: BlockShape, kernels: Mapping[str, np.ndarray], scales: Scales) -> np.ndarray:
    """The one kernel that a sum of branches is.

    Args:
        kernels: of each branch that has one, by path: 'conv3x3.conv1.kernel'.
    """
    values = {**kernels, **scales}
    return np.asarray(kind.fold_branches(lambda path: values[path], shape, np.asarray).kernel)


def fresh_kernel(
    kind: BlockKind, shape: BlockShape, main: np.ndarray, scales: Scales, generator: np.random.Generator
) -> np.ndarray:
    """The kernel to begin with: the sum of fresh branches.

    Args:
        main: the fresh kernel of the first branch; others are drawn as PyTorch does.
    """
    first, *others = [parameter for parameter in kind.parameters(shape) if parameter.role == "kernel"]
    drawn = {parameter.path: parameter.fresh(generator) for parameter in others}
    return summed_kernel(kind, shape, {first.path: main, **drawn}, scales)


def _alone(kind: BlockKind, shape: BlockShape) -> set[str]:
    """The factors of branches without a kernel."""

    def paths(branch: Branch) -> list[str]:
        return [one.path for one in branch.parameters(shape) if one.role == "scale"]

    branches = kind.branches(shape)
    without = [branch for branch in branches if not any(isinstance(step, Conv) for step in branch.steps)]
    return {path for branch in without for path in paths(branch)}
