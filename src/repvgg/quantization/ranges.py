"""The ranges of what each layer reads, and its inputs on the grids that follow from them."""

from collections.abc import Mapping

import keras
import numpy as np

from repvgg.quantization.rounding import rounded_activations
from repvgg.quantization.steps import Step, Steps, Tensor, apply, batches
from repvgg.runners.keras import to_numpy

Limits = Mapping[str, tuple[float, float]]
"""Smallest and largest input of each convolution and dense layer, by the step's name."""


def input_limits(model: "Steps | keras.Model", images: np.ndarray) -> dict[str, tuple[float, float]]:
    """What each convolution and dense layer reads on `images` (N, H, W, C), from the smallest value to the largest."""
    found: dict[str, tuple[float, float]] = {}

    def call(step: Step, inputs: list[Tensor]) -> Tensor:
        if step.weighted:
            values = to_numpy(inputs[0])
            low, high = found.get(step.name, (0.0, 0.0))
            found[step.name] = (min(low, float(values.min())), max(high, float(values.max())))
        return apply(step, inputs)

    steps = model if isinstance(model, Steps) else Steps(model)
    for part in batches(images):
        for _ in steps.run(part, call):
            pass
    return found


def rounded_input(step: Step, inputs: list[Tensor], limits: Limits) -> list[Tensor]:
    """The step's input in eight bits."""
    return [keras.ops.convert_to_tensor(rounded_activations(to_numpy(inputs[0]), *limits[step.name]))]
