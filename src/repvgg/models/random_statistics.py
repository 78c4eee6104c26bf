"""Weights of a network that nobody has trained, such that comparing it with another one proves something."""

from typing import Any

import numpy as np


def randomize_statistics(model: Any, seed: int = 0, *, gain: float = 1.0) -> Any:
    """Gives `model` statistics as training leaves them: fresh ones (mean 0, variance 1, gamma 1) hide most mistakes.

    Kernels keep their initial values. The ranges are such that what differs between two images is neither lost on the
    way through 50 blocks, with channel attention or without (an output that no longer depends on the image would agree
    with anything), nor amplified until roundings of the first blocks are all that is seen.

    Args:
        gain: of every gamma. Blocks of one branch, without an identity beside it, need 2.5 for the same.
    """
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        match variable.path.rsplit("/", 2)[-2:]:
            case _, "gamma" | "scale":
                values = gain * generator.uniform(0.7, 1.7, variable.shape)
            case _, "moving_variance":
                values = generator.uniform(0.3, 3, variable.shape)
            case "up", "bias":
                # Attention lets most of each channel through, as in a network that has learnt to use it.
                values = generator.uniform(0.5, 2.5, variable.shape)
            case _, "beta" | "moving_mean" | "bias":
                values = 0.3 * generator.standard_normal(variable.shape)
            case _:
                continue
        variable.assign(values)
    return model
