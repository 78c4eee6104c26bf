"""Any callable from images to logits."""

from collections.abc import Callable
from typing import Any

import numpy as np

from repvgg.runners.runner import Runner


class FunctionRunner(Runner):
    """Wraps `function`, which gets (N, H, W, C) in float32 and gives an array of logits."""

    def __init__(self, function: Callable[[np.ndarray], Any], name: str) -> None:
        self.function = function
        self.name = getattr(function, "__name__", name)
        self.input_shape = (None, None, None)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.asarray(self.function(images))
