"""Networks that are hard to quantize, made on purpose."""

from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.quantization.links import Weights, find_links
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
    links, weights = find_links(steps), Weights(steps)
    if not links:
        raise InputError(f"'{model.name}' has no two layers in a row whose channels could be scaled.")
    generator = np.random.default_rng(seed)
    for link in links:
        factors = np.exp(generator.uniform(0, np.log(largest), link.producer.layer.kernel.shape[-1]))
        weights.rescale(link, 1 / factors)
    weights.store()
    return scaled
