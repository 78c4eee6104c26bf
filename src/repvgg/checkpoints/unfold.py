"""From deploy form back to a training form that computes the same function."""

from typing import Any

import numpy as np
import numpy.typing as npt

from repvgg.blocks.branches import EPSILON
from repvgg.checkpoints.canonical import block_prefix
from repvgg.core import fold
from repvgg.core.architecture import Architecture, BlockSpec

Array = npt.NDArray[Any]

_TO_KERAS, _TO_TORCH = (2, 3, 1, 0), (3, 2, 0, 1)


def unfold(
    tensors: dict[str, Array], architecture: Architecture, in_channels: int, *, seed: int = 0
) -> dict[str, Array]:
    """The tensors of a training form that computes what the deploy form in `tensors` computes.

    A kernel can be a sum of three branches in endlessly many ways. This one is taken for each block: the 1x1 branch
    gets a fresh random kernel (PyTorch's initialization, from `seed`), every batch normalization is fresh (gamma and
    variance 1, beta and mean 0), and the 3x3 branch gets the rest. With t = 1 / sqrt(1 + epsilon),

        K3 = K / t - (K1 in the centre) - (identity kernel, where the block has that branch),  beta3 = b.

    So the branches are no copies of each other, and in inference mode their sum is K and b up to the rounding of the
    stored numbers. Training mode normalizes with the batch's statistics instead, which these fresh ones are not; call
    `repvgg.checkpoints.settle_statistics(model, images)` on the finished model to start from the same function there.

    Tensors are taken out of `tensors` one block at a time; what is not in a block's convolution stays as it is.
    """
    generator = np.random.default_rng(seed)
    result: dict[str, Array] = {}
    for spec in architecture.blocks(in_channels):
        prefix = block_prefix(spec.stage, spec.index)
        kernel, bias = tensors.pop(f"{prefix}rbr_reparam.weight"), tensors.pop(f"{prefix}rbr_reparam.bias")
        result.update(_unfolded(prefix, spec, kernel, bias, generator))
    result.update(tensors)
    tensors.clear()
    return result


def _unfolded(
    prefix: str, spec: BlockSpec, kernel: Array, bias: Array, generator: np.random.Generator
) -> dict[str, Array]:
    width, fan = kernel.shape[:2]
    # Folding half-precision weights again would not lead back to them, so branches have 32 bits at least.
    dtype = np.result_type(kernel.dtype, np.float32) if kernel.dtype.kind == "f" else np.dtype(np.float32)
    ones, zeros = np.ones(width), np.zeros(width)
    fresh = fold.BatchNorm(ones, zeros, zeros, ones, EPSILON)
    point = generator.uniform(-1, 1, (1, 1, fan, width)) / np.sqrt(fan)
    # What is stored is what is subtracted: the 3x3 kernel makes up for the rounding of the 1x1 kernel.
    point = point.astype(dtype).astype(np.float64)
    rest = kernel.astype(np.float64).transpose(_TO_KERAS) / fresh.scale - fold.expand_kernel(point, 3)
    if spec.has_identity:
        rest -= fold.identity_kernel(width, spec.groups)

    def norm(name: str, beta: Array) -> dict[str, Array]:
        values = {"weight": ones, "bias": beta, "running_mean": zeros, "running_var": ones}
        return {f"{prefix}{name}.{leaf}": value.astype(dtype) for leaf, value in values.items()}

    return {
        f"{prefix}rbr_dense.conv.weight": rest.transpose(_TO_TORCH).astype(dtype),
        **norm("rbr_dense.bn", bias.astype(np.float64)),
        f"{prefix}rbr_1x1.conv.weight": point.transpose(_TO_TORCH).astype(dtype),
        **norm("rbr_1x1.bn", zeros),
        **(norm("rbr_identity", zeros) if spec.has_identity else {}),
    }
