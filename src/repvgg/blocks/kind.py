"""What a block is made of: branches, each a chain of linear steps. Data and arithmetic; Keras is met in `base.py`.

A kind of block lists its branches. Everything else follows from that list: the layers that train, the fold to one
convolution, parameters and multiplications, names and shapes of tensors in checkpoints, and what weight decay acts on.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from repvgg.base.errors import InputError
from repvgg.core import fold
from repvgg.core.architecture import BlockShape

Weights = Callable[[str], fold.Array]
"""The arrays of a block or branch by path, such as 'norm.gamma', in whatever arithmetic is to be done; and of each
normalization the number 'norm.epsilon'."""

NORM_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
"""The variables of a batch normalization in Keras, and their names in PyTorch."""


Role = Literal["kernel", "norm", "statistic", "scale"]


@dataclass(frozen=True)
class Parameter:
    """One array of a branch.

    Attributes:
        path: where it is in the block, such as 'conv3x3.norm.gamma'.
        tensor: its name inside the block in checkpoints, such as 'rbr_dense.bn.weight'.
        shape: as Keras keeps it; kernels are (height, width, in / groups, out).
        role: what it is.
        decayed: whether weight decay acts on it.
        before_stride: whether its convolution runs on all pixels of the block's input, not on those of its output.
    """

    path: str
    tensor: str
    shape: tuple[int, ...]
    role: Role
    decayed: bool = False
    before_stride: bool = False

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape))

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Its shape in PyTorch: kernels are (out, in / groups, height, width)."""
        return tuple(self.shape[axis] for axis in (3, 2, 0, 1)) if self.role == "kernel" else self.shape

    def fresh(self, generator: np.random.Generator) -> fold.Array:
        """Its value as training begins: kernels as PyTorch's, uniform in +-1/sqrt(fan_in)."""
        if self.role == "kernel":
            return generator.uniform(-1, 1, self.shape) / np.sqrt(np.prod(self.shape[:3]))
        one = self.role == "scale" or self.path.endswith(("gamma", "moving_variance"))
        return np.ones(self.shape) if one else np.zeros(self.shape)


@dataclass(frozen=True)
class Conv:
    """A convolution without bias.

    Attributes:
        module: its name in checkpoints.
        kernel_size: height and width, both odd.
        filters: what it gives the next step; the block's filters if None.
        identity_based: what is stored is the difference from the kernel that returns its input.
    """

    module: str
    kernel_size: tuple[int, int]
    filters: int | None = None
    identity_based: bool = False


@dataclass(frozen=True)
class Norm:
    """Batch normalization; `module` is its name in checkpoints."""

    module: str


@dataclass(frozen=True)
class AveragePool:
    """The mean of a window, zeros beyond the border counted."""

    kernel_size: tuple[int, int]


@dataclass(frozen=True)
class Scale:
    """A factor for each channel; `module` is its name in checkpoints."""

    module: str


Window = Conv | AveragePool
"""The steps that look at more than one pixel, or may, and of which the last one takes the stride."""

Step = Window | Norm | Scale


@dataclass(frozen=True)
class Branch:
    """A chain of linear steps from the block's input to its sum; none at all is the input itself.

    The last convolution or pooling takes the block's stride. Zeros around the input stand before the first step: what
    the steps before a larger window make of them is what that window reads beyond the border.

    Attributes:
        name: of its layer, as an attribute of the block.
        steps: in order.
    """

    name: str
    steps: tuple[Step, ...] = ()

    @property
    def kernel_size(self) -> tuple[int, int]:
        """Height and width of the one convolution that all its steps are."""
        sizes = [step.kernel_size for step in self.steps if isinstance(step, Window)]
        return 1 + sum(size[0] - 1 for size in sizes), 1 + sum(size[1] - 1 for size in sizes)

    def step_paths(self) -> Iterator[tuple[str, Step]]:
        """Each step with the path of its layer inside the branch's, '' for that layer itself."""
        match self.steps:
            case [Conv()] | [Norm()] | [Scale()]:
                yield "", self.steps[0]
            case [Conv(), Norm()]:
                yield "", self.steps[0]
                yield "norm.", self.steps[1]
            case _:
                words = {Conv: "conv", Norm: "norm", AveragePool: "pool", Scale: "scale"}
                counts = dict.fromkeys(words, 0)
                for step in self.steps:
                    counts[type(step)] += 1
                    yield f"{words[type(step)]}{counts[type(step)]}.", step

    def widths(self, shape: BlockShape) -> Iterator[tuple[int, int]]:
        """Channels before and after each step."""
        channels = shape.in_channels
        for step in self.steps:
            width = channels
            if isinstance(step, Conv):
                width = step.filters or shape.filters
            yield channels, width
            channels = width

    def parameters(self, shape: BlockShape) -> Iterator[Parameter]:
        """Its arrays, in a block of this shape."""
        windows = [place for place, step in enumerate(self.steps) if isinstance(step, Window)]
        for place, ((path, step), (before, after)) in enumerate(
            zip(self.step_paths(), self.widths(shape), strict=True)
        ):
            inside = f"{self.name}.{path}"
            if isinstance(step, Conv):
                kernel = (*step.kernel_size, before // shape.groups, after)
                early = place != windows[-1]
                yield Parameter(f"{inside}kernel", f"{step.module}.weight", kernel, "kernel", True, early)
            elif isinstance(step, Norm):
                # The scale of the input itself stands where other branches have a kernel.
                yield from norm_parameters(inside, step.module, after, scale_decayed=place == 0)
            elif isinstance(step, Scale):
                yield Parameter(f"{inside}scale", f"{step.module}.weight", (after,), "scale", place == 0)

    def fold(self, weights: Weights, shape: BlockShape, convert: fold.Convert) -> fold.Linear:
        """The one convolution that it is in inference, with a kernel of `kernel_size`."""
        linear: fold.Linear | None = None
        for (path, step), (before, after) in zip(self.step_paths(), self.widths(shape), strict=True):
            if isinstance(step, Norm):
                norm = read_norm(weights, path)
                if linear is None:
                    linear = fold.fold_identity(norm, before, shape.groups, 1, convert)
                elif isinstance(linear.bias, int):
                    linear = fold.fold_batch_norm(linear.kernel, norm)
                else:
                    linear = fold.fold_outer_batch_norm(linear, norm)
                continue
            if isinstance(step, Scale):
                if linear is None:
                    linear = fold.Linear(convert(fold.identity_kernel(before, shape.groups, 1)), 0)
                linear = fold.fold_scale(linear, weights(f"{path}scale"))
                continue
            if isinstance(step, Conv):
                kernel = weights(f"{path}kernel")
                if step.identity_based:
                    kernel = kernel + convert(fold.identity_kernel(after, shape.groups, 1))
            else:
                kernel = convert(fold.average_kernel(after, shape.groups, step.kernel_size))
            next_one = fold.Linear(kernel, 0)
            linear = next_one if linear is None else fold.compose(linear, next_one, before, shape.groups, convert)
        if linear is None:
            return fold.Linear(convert(fold.identity_kernel(shape.in_channels, shape.groups, 1)), 0)
        return linear


def read_norm(weights: Weights, path: str) -> fold.BatchNorm:
    """The batch normalization at `path`."""
    gamma, beta, mean, variance = (weights(path + leaf) for leaf in NORM_LEAVES)
    return fold.BatchNorm(gamma, beta, mean, variance, weights(f"{path}epsilon"))


def norm_parameters(path: str, module: str, width: int, *, scale_decayed: bool = False) -> Iterator[Parameter]:
    """The arrays of a batch normalization."""
    for leaf, theirs in NORM_LEAVES.items():
        role: Role = "statistic" if leaf.startswith("moving") else "norm"
        yield Parameter(f"{path}{leaf}", f"{module}.{theirs}", (width,), role, scale_decayed and leaf == "gamma")


def conv_norm(name: str, module: str, kernel_size: tuple[int, int]) -> Branch:
    """A convolution and its batch normalization, called `module`.conv and `module`.bn in checkpoints."""
    return Branch(name, (Conv(f"{module}.conv", kernel_size), Norm(f"{module}.bn")))


class BlockKind(ABC):
    """A kind of re-parameterizable block; a subclass lists the branches, and its docstring is that of the layer.

    Attributes:
        name: of the Keras layer, and in `Architecture.block`.
        sum_norm: the name in checkpoints of the batch normalization of the branches' sum; None if there is none.
        has_copies: whether the main branch may be there more than once.
        has_custom_l2: whether `custom_l2` has an answer.
        trained_as: the sum of branches with constant factors that an optimizer trains a block of this kind as, by
            multiplying gradients; None for ordinary training.
    """

    name: ClassVar[str]
    sum_norm: ClassVar[str | None] = None
    has_copies: ClassVar[bool] = False
    has_custom_l2: ClassVar[bool] = False
    trained_as: "ClassVar[BlockKind | None]" = None

    @abstractmethod
    def branches(self, shape: BlockShape) -> Iterator[Branch]:
        """The branches of a block of this shape, in the order in which they are added up."""

    def check_branches(self, shape: BlockShape) -> None:
        """Whether all branches fit into the one kernel that they are to be folded into.

        Raises:
            InputError: if one does not, which would otherwise show after the training.
        """
        height, width = shape.kernel_size
        for branch in self.branches(shape):
            rows, columns = branch.kernel_size
            if rows > height or columns > width or rows % 2 == 0 or columns % 2 == 0:
                raise InputError(
                    f"Branch '{branch.name}' of {self.name} is {rows} x {columns}, and the kernel that all branches "
                    f"are folded into {height} x {width} (`kernel_size`). It has to have odd sides and be no larger."
                )

    def is_plain(self, shape: BlockShape) -> bool:
        """Whether a block is a single convolution while it trains, and only its normalization is left to fold."""
        branches = list(self.branches(shape))
        return len(branches) == 1 and [type(step) for step in branches[0].steps] == [Conv, Norm]

    def parameters(self, shape: BlockShape) -> Iterator[Parameter]:
        """All arrays of the training form, but those of attention."""
        for branch in self.branches(shape):
            yield from branch.parameters(shape)
        if self.sum_norm is not None:
            yield from norm_parameters("norm.", self.sum_norm, shape.filters)

    def fold_branches(self, weights: Weights, shape: BlockShape, convert: fold.Convert) -> fold.Linear:
        """The one convolution that the sum of the branches is, before its normalization if it has one."""
        folded = []
        for branch in self.branches(shape):
            linear = branch.fold(_inside(weights, branch.name), shape, convert)
            folded.append(fold.Linear(fold.expand_kernel(linear.kernel, shape.kernel_size, convert), linear.bias))
        return fold.add_branches(folded)

    def fold(self, weights: Weights, shape: BlockShape, convert: fold.Convert) -> fold.Linear:
        """The one convolution that a block is in inference.

        Args:
            weights: gives a parameter by its path in the block.
        """
        total = self.fold_branches(weights, shape, convert)
        if self.sum_norm is None:
            return total
        return fold.fold_outer_batch_norm(total, read_norm(weights, "norm."))

    def custom_l2(self, weights: Weights, ops: Any) -> Any:
        """The kind's own weight decay of a block in training form, a scalar; only where `has_custom_l2`.

        Args:
            weights: gives a parameter by its path in the block, as a tensor.
            ops: `keras.ops`.
        """
        raise NotImplementedError(f"{self.name} says that it has a custom L2, and does not define it.")


def _inside(weights: Weights, name: str) -> Weights:
    return lambda path: weights(f"{name}.{path}")
