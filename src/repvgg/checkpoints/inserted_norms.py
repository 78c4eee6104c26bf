"""Batch normalizations that the official `insert_bn.py` puts after the convolutions of a deploy form."""

import re
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import numpy.typing as npt

from repvgg.core import fold

Array = npt.NDArray[Any]

_KERNEL = re.compile(r"(.*rbr_reparam\.)conv\.weight")
_TO_KERAS, _TO_TORCH = (2, 3, 1, 0), (3, 2, 0, 1)


def fold_inserted_norms(tensors: MutableMapping[str, Array], epsilon: float) -> int:
    """Folds `rbr_reparam.conv` and `rbr_reparam.bn` into one `rbr_reparam`, in place; how many there were.

    Such a network is a deploy form with a normalization for quantization-aware training. In inference it computes what
    the folded one does. Where a tensor of a block is missing or misshapen, all of that block stay as they are.

    Source: https://github.com/DingXiaoH/RepVGG, `tools/insert_bn.py`.
    """
    prefixes = [match[1] for name in tensors if (match := _KERNEL.fullmatch(name))]
    folded = 0
    for prefix in prefixes:
        names = [f"{prefix}bn.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")]
        kernel = tensors[f"{prefix}conv.weight"]
        if kernel.ndim != 4 or any(name not in tensors or tensors[name].shape != kernel.shape[:1] for name in names):
            continue
        del tensors[f"{prefix}conv.weight"]
        gamma, beta, mean, variance = (tensors.pop(name).astype(np.float64) for name in names)
        norm = fold.BatchNorm(gamma, beta, mean, variance, epsilon)
        linear = fold.fold_batch_norm(kernel.astype(np.float64).transpose(_TO_KERAS), norm)
        tensors[f"{prefix}weight"] = linear.kernel.transpose(_TO_TORCH).astype(kernel.dtype)
        tensors[f"{prefix}bias"] = linear.bias.astype(kernel.dtype)
        folded += 1
    return folded
