"""Searching the scales of RepOptimizer, from Python."""

from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError
from repvgg.base.run_folder import OPTIMIZER_SCALES
from repvgg.checkpoints.scales import Scales, load_scales
from repvgg.models.variants import SEARCH, VARIANTS, get_variant
from repvgg.training.run import train


def search_scales(data: str | Path, model: str = "RepOpt-VGG-A0", **options: Any) -> Scales:
    """Finds the scales of RepOptimizer by training the search network of `model`, in which they are weights.

    The authors search on CIFAR-100 for networks that are then trained on ImageNet: a small data set will do.

    Args:
        data: as for `repvgg.train`.
        model: the network that the scales are for.
        options: for `repvgg.train`: `epochs`, `recipe`, `output`, `resume`, ...

    Returns:
        The scales, which also lie in the run's folder as `scales.safetensors`.

    Raises:
        InputError: if there is no search network for `model`; and whatever `repvgg.train` raises.

    Example:
        >>> scales = repvgg.search_scales("flowers", "RepOpt-VGG-A0", epochs=20)  # doctest: +SKIP
    """
    name = f"{get_variant(model).name.removesuffix(SEARCH)}{SEARCH}"
    if name not in VARIANTS:
        known = ", ".join(one.removesuffix(SEARCH) for one in VARIANTS if one.endswith(SEARCH))
        raise InputError(f"Scales are searched for {known}, and not for {model}.")
    result = train(data, name, **options)
    return load_scales(result.folder / OPTIMIZER_SCALES)
