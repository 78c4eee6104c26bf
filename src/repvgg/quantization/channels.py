"""What is measured of each channel: its range, its power, and how much the outputs depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from repvgg.blocks import ops
from repvgg.quantization.steps import Step, Steps, Tensor, apply, batches, linear_part, that_fit
from repvgg.runners.keras import to_numpy

GRADIENT_IMAGES = 16
GRADIENT_BYTES = 2**28
"""All layers' values of these images are held at once: as many as the largest tensor may have bytes, and no more."""


@dataclass(frozen=True)
class LayerChannels:
    """One convolution or dense layer with C input channels and F output channels.

    Attributes:
        range: (C,), from the smallest input to the largest, 0 included.
        power: (C,), the mean square of the inputs.
        deviation: (F,), standard deviation of the outputs, before the activation.
        importance: (F,), by how much noise of power 1 in a channel, before the activation and at every position of it,
            disturbs the network's outputs: a power as well.
    """

    range: np.ndarray
    power: np.ndarray
    deviation: np.ndarray
    importance: np.ndarray


def layer_channels(steps: Steps, images: np.ndarray) -> dict[str, LayerChannels]:
    """Measured on `images` (N, H, W, C), by the step's name."""
    sums: dict[str, _Sums] = {}

    def call(step: Step, inputs: list[Tensor]) -> Tensor:
        if not step.weighted:
            return apply(step, inputs)
        outputs = linear_part(step, inputs)
        sums.setdefault(step.name, _Sums()).add(to_numpy(inputs[0]), to_numpy(outputs))
        return step.layer.activation(outputs)

    for part in batches(images):
        for _ in steps.run(part, call):
            pass
    importance = _importance(steps, images)
    return {name: one.channels(importance[name]) for name, one in sums.items()}


class _Sums:
    def __init__(self) -> None:
        self.low: Any = 0.0
        self.high: Any = 0.0
        self.squares, self.outputs, self.output_squares = (np.zeros(1) for _ in range(3))
        self.input_count, self.output_count = 0, 0

    def add(self, inputs: np.ndarray, outputs: np.ndarray) -> None:
        inputs, outputs = (values.reshape(-1, values.shape[-1]).astype(np.float64) for values in (inputs, outputs))
        self.low, self.high = np.minimum(self.low, inputs.min(axis=0)), np.maximum(self.high, inputs.max(axis=0))
        self.squares = self.squares + np.square(inputs).sum(axis=0)
        self.outputs = self.outputs + outputs.sum(axis=0)
        self.output_squares = self.output_squares + np.square(outputs).sum(axis=0)
        self.input_count, self.output_count = self.input_count + len(inputs), self.output_count + len(outputs)

    def channels(self, importance: np.ndarray) -> LayerChannels:
        variance = self.output_squares / self.output_count - np.square(self.outputs / self.output_count)
        return LayerChannels(
            self.high - self.low, self.squares / self.input_count, np.sqrt(np.maximum(variance, 0)), importance
        )


def _importance(steps: Steps, images: np.ndarray) -> Mapping[str, np.ndarray]:
    """Squared gradients of the outputs, each with a random sign, added up over positions and averaged over images."""
    chosen = that_fit(steps, images, GRADIENT_IMAGES, GRADIENT_BYTES)
    generator = np.random.default_rng(0)
    shapes: dict[str, Any] = {}
    signs: dict[str, Tensor] = {}
    for step, tensor in steps.run(chosen):
        if step.weighted:
            shapes[step.name] = tensor
        if step.name in steps.outputs:
            signs[step.name] = keras.ops.convert_to_tensor(
                generator.choice([-1.0, 1.0], size=tensor.shape), dtype=tensor.dtype
            )
    names = list(shapes)
    nothing = [keras.ops.zeros_like(shapes[name]) for name in names]
    shapes.clear()

    def answers(noise: list[Tensor]) -> Tensor:
        added = dict(zip(names, noise, strict=True))

        def call(step: Step, inputs: list[Tensor]) -> Tensor:
            if not step.weighted:
                return apply(step, inputs)
            return step.layer.activation(linear_part(step, inputs) + added[step.name])

        return sum(
            keras.ops.sum(tensor * signs[step.name]) for step, tensor in steps.run(chosen, call) if step.name in signs
        )

    found = {}
    for name, gradient in zip(names, ops.gradients(answers, nothing), strict=True):
        squares = np.square(to_numpy(gradient).astype(np.float64))
        found[name] = squares.reshape(-1, squares.shape[-1]).sum(axis=0) / len(chosen)
    return found
