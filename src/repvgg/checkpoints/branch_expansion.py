"""Branch expansion: from deploy form back to a training form that computes the same function."""

from typing import Any

import numpy as np
import numpy.typing as npt

from repvgg.blocks import KINDS
from repvgg.blocks.kind import BlockKind
from repvgg.checkpoints.canonical import REPARAM, block_prefix, torch_ordered
from repvgg.core import fold
from repvgg.core.architecture import Architecture, BlockShape

Array = npt.NDArray[Any]

_TO_KERAS, _TO_TORCH = (2, 3, 1, 0), (3, 2, 0, 1)


def expand_branches(
    tensors: dict[str, Array], architecture: Architecture, in_channels: int, *, seed: int = 0
) -> dict[str, Array]:
    """The tensors of a training form that computes what the deploy form in `tensors` computes.

    A kernel can be a sum of branches in endlessly many ways. This one is taken for each block: every kernel but that of
    the first branch is a fresh random one (PyTorch's initialization, from `seed`), every batch normalization is fresh
    (gamma and variance 1, beta and mean 0), and the first branch gets the rest. For the paper's block, with
    t = 1 / sqrt(1 + epsilon),

        K3 = K / t - (K1 in the centre) - (identity kernel, where the block has that branch),  beta3 = b.

    So the branches are not copies of each other, and in inference mode their sum is K and b up to the rounding of the
    stored numbers. Training mode normalizes with the batch's statistics instead, which these fresh ones are not; call
    `repvgg.checkpoints.recalibrate_batch_norm(model, images)` on the finished model to start from the same function
    there.

    Tensors are taken out of `tensors` one block at a time; what is not in a block's convolution stays as it is.
    """
    generator = np.random.default_rng(seed)
    result: dict[str, Array] = {}
    for spec in architecture.blocks(in_channels):
        prefix = block_prefix(spec.stage, spec.index)
        kernel, bias = tensors.pop(f"{prefix}{REPARAM}.weight"), tensors.pop(f"{prefix}{REPARAM}.bias")
        epsilon = architecture.adaptation.epsilon
        expanded = _expanded(KINDS[architecture.block], spec.shape, kernel, bias, epsilon, generator)
        result.update({prefix + name: tensor for name, tensor in expanded.items()})
    result.update(tensors)
    tensors.clear()
    return result


def _expanded(
    kind: BlockKind, shape: BlockShape, kernel: Array, bias: Array, epsilon: float, generator: np.random.Generator
) -> dict[str, Array]:
    # Folding half-precision weights again would not lead back to them, so branches have 32 bits at least.
    dtype = np.result_type(kernel.dtype, np.float32) if kernel.dtype.kind == "f" else np.dtype(np.float32)
    parameters = {parameter.path: parameter for parameter in torch_ordered(kind, shape)}
    main = next(parameter for parameter in kind.parameters(shape) if parameter.role == "kernel")
    beta = next(parameter.path for parameter in kind.parameters(shape) if parameter.path.endswith("beta"))
    # What is stored is what is subtracted: the first kernel makes up for the rounding of the others.
    values = {
        path: parameter.fresh(generator).astype(dtype).astype(np.float64) for path, parameter in parameters.items()
    }

    def folded(**changed: Array) -> fold.Linear:
        given = {main.path: np.zeros(main.shape), **values, **changed}
        return kind.fold(lambda path: epsilon if path.endswith("epsilon") else given[path], shape, np.asarray)

    # What a block is in the end is linear in its first kernel and in each of its betas.
    del values[main.path]
    others = folded()
    of_kernel = folded(**{main.path: np.ones(main.shape)}).kernel - others.kernel
    of_beta = folded(**{beta: np.ones(parameters[beta].shape)}).bias - others.bias
    values[main.path] = (kernel.astype(np.float64).transpose(_TO_KERAS) - others.kernel) / of_kernel
    values[beta] = (bias.astype(np.float64) - others.bias) / of_beta
    return {
        parameter.tensor: (values[path].transpose(_TO_TORCH) if parameter.role == "kernel" else values[path]).astype(
            dtype
        )
        for path, parameter in parameters.items()
    }
