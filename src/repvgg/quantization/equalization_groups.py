"""Equalization groups: where the scale of a layer's channels can be moved into its consumers, and the function stays.

ReLU is positively homogeneous: relu(x / s) * s = relu(x) for s > 0. So an output channel may be divided by s where
everything that reads it multiplies by s again. Padding with zeros, pooling and channel attention's multiplication pass
a scale on; a convolution or a dense layer takes it up in its weights; anything else, such as a sum of two branches,
another activation or the network's own output, forbids it.
"""

from collections import Counter
from dataclasses import dataclass

import keras
import numpy as np

from repvgg.quantization.steps import Step, Steps, assign, bias_of, kernel_of

_PASSING = (
    keras.layers.ZeroPadding2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.MaxPooling2D,
    keras.layers.Dropout,
)
_HOMOGENEOUS = ("relu", "linear")


@dataclass(frozen=True)
class EqualizationGroup:
    """A producer, and the consumers that take up what its output channels are divided by."""

    producer: Step
    consumers: tuple[Step, ...]


def find_equalization_groups(steps: Steps) -> list[EqualizationGroup]:
    """All groups of a network, in the order of their producers. Layers that are called twice are in none."""
    readers = steps.consumers()
    calls = Counter(id(step.layer) for step in steps.steps)
    found = []
    for step in steps.weighted:
        consumers = _consumers(step, readers, steps.outputs) if _scalable(step) else None
        if consumers and all(calls[id(one.layer)] == 1 for one in (step, *consumers)):
            found.append(EqualizationGroup(step, tuple(consumers)))
    return found


class Weights:
    """Kernels and biases of a network in float64, to be changed many times and rounded to float32 once.

    Attributes:
        kernels, biases: by the layer's name among the steps; a layer without bias has zeros.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps.weighted
        self.kernels = {step.name: kernel_of(step.layer) for step in self._steps}
        self.biases = {step.name: bias_of(step.layer) for step in self._steps}

    def rescale(self, group: EqualizationGroup, scales: np.ndarray) -> None:
        """Divides the producer's output channels by `scales` (C,), all above 0, and multiplies in its consumers."""
        name = group.producer.name
        self.kernels[name] = self.kernels[name] / scales
        self.biases[name] = self.biases[name] / scales
        for consumer in group.consumers:
            self.kernels[consumer.name] = self.kernels[consumer.name] * by_input(consumer, scales)

    def store(self) -> None:
        """Gives the layers what was calculated."""
        for step in self._steps:
            assign(step.layer.kernel, self.kernels[step.name])
            if step.layer.use_bias:
                assign(step.layer.bias, self.biases[step.name])


def input_ranges(step: Step, kernel: np.ndarray) -> np.ndarray:
    """The largest weight, without its sign, of each input channel (C,)."""
    kernel = np.abs(kernel)
    if kernel.ndim == 2:
        largest: np.ndarray = kernel.max(axis=1)
        return largest
    # (k, k, C / groups, filters): group g of the filters reads group g of the channels.
    by_group = kernel.reshape(*kernel.shape[:3], step.layer.groups, -1).max(axis=(0, 1, 4))
    ranges: np.ndarray = by_group.T.reshape(-1)
    return ranges


def output_ranges(kernel: np.ndarray) -> np.ndarray:
    """The largest weight, without its sign, of each output channel (C,)."""
    largest: np.ndarray = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
    return largest


def by_input(step: Step, scales: np.ndarray) -> np.ndarray:
    """Values of the input channels (C,) in a shape that goes with the layer's kernel."""
    if isinstance(step.layer, keras.layers.Dense):
        return scales[:, None]
    groups, filters = step.layer.groups, step.layer.filters
    return np.repeat(scales.reshape(groups, -1).T, filters // groups, axis=1)[None, None]


def _scalable(step: Step) -> bool:
    last = getattr(step.layer, "data_format", "channels_last") == "channels_last"
    return last and keras.activations.serialize(step.layer.activation) in _HOMOGENEOUS


def _consumers(producer: Step, readers: dict[str, list[Step]], outputs: tuple[str, ...]) -> list[Step] | None:
    """The layers that take up the producer's scale; None where something forbids it, or nobody reads it."""
    scaled, consumers = [producer.name], []
    for name in scaled:
        if name in outputs:
            return None
        for reader in readers.get(name, ()):
            if reader.weighted:
                consumers.append(reader)
            elif reader.name not in scaled and _passes_scale_on(reader):
                scaled.append(reader.name)
            else:
                # Also a product that is reached twice: it would carry the square of the scale.
                return None
    channels = producer.layer.kernel.shape[-1]
    if not consumers or any(_inputs(one) != channels for one in consumers):
        return None
    return consumers


def _inputs(step: Step) -> int:
    return int(step.layer.kernel.shape[-2]) * int(getattr(step.layer, "groups", 1))


def _passes_scale_on(step: Step) -> bool:
    layer = step.layer
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold
    if type(layer) is keras.layers.Activation:
        return keras.activations.serialize(layer.activation) in _HOMOGENEOUS
    return type(layer) in _PASSING or type(layer) is keras.layers.Multiply
