"""Networks that are hard to quantize, made on purpose."""

from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.quantization.equalization_groups import Weights, find_equalization_groups
from repvgg.quantization.steps import Steps, copied


def scale_channels(model: Any, largest: float = 100.0, seed: int = 0) -> Any:
    """A copy of a deployed model with the same function, whose channels differ in range by factors of 1 to `largest`.

    Large networks trained for long have such channels; one tensor's common grid then leaves nothing for most of them.
    The factors are spread evenly on a logarithmic scale.

    Raises:
        InputError: if the model has no two layers between which a scale could be moved.
    """
    if largest < 1:
        raise InputError(f"`largest` (={largest}) must be at least 1.")
    scaled = copied(model)
    steps = Steps(scaled)
    groups, weights = find_equalization_groups(steps), Weights(steps)
    if not groups:
        raise InputError(f"'{model.name}' has no two layers in a row whose channels could be scaled.")
    generator = np.random.default_rng(seed)
    for group in groups:
        factors = np.exp(generator.uniform(0, np.log(largest), group.producer.layer.kernel.shape[-1]))
        weights.rescale(group, 1 / factors)
    weights.store()
    return scaled
