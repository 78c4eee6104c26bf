"""A deployed network as a list of steps that can be run one by one, nested models opened."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.models.functional_graph import FunctionalGraph, TensorKey
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.runners.keras import to_numpy

Tensor = Any


@dataclass(frozen=True)
class Step:
    """One call of one layer: from tensors by name to a tensor that has the step's own name.

    The name is the layer's, after those of the models around it, as in the ONNX graph of the same network.
    """

    name: str
    layer: Any
    inputs: tuple[str, ...]

    @property
    def weighted(self) -> bool:
        """Whether this is a convolution or a dense layer: what INT8 is about."""
        return type(self.layer) in (keras.layers.Conv2D, keras.layers.Dense)


class Steps:
    """All steps in an order in which they can be computed.

    Attributes:
        input: the name of the images.
        steps: the calls, in order.
        outputs: names of the tensors that are the network's outputs.
    """

    def __init__(self, model: Any) -> None:
        graph = FunctionalGraph(model)
        if len(graph.inputs) != 1:
            raise InputError(f"INT8 is for networks with one input of images; '{model.name}' has {len(graph.inputs)}.")
        self.input = "images"
        self.steps: list[Step] = []
        names = self._open(graph, [self.input], prefix="")
        self.outputs = tuple(names[key] for key in graph.outputs.values())

    def _open(self, graph: FunctionalGraph, inputs: list[str], prefix: str) -> dict[TensorKey, str]:
        """The names of all tensors of a model."""
        names: dict[TensorKey, str] = dict(zip(graph.inputs, inputs, strict=True))
        for call in graph.calls:
            label = prefix + call.output[0] + (f":{call.output[1]}" if call.output[1] else "")
            given = [names[key] for key in call.inputs]
            if isinstance(call.layer, keras.Model):
                inner = FunctionalGraph(call.layer)
                opened = self._open(inner, given, prefix=f"{label}/")
                names.update(zip(call.outputs, (opened[key] for key in inner.flat_outputs), strict=True))
            else:
                self.steps.append(Step(label, call.layer, tuple(given)))
                names[call.output] = label
        return names

    @property
    def weighted(self) -> list[Step]:
        """The convolutions and dense layers, in order."""
        return [step for step in self.steps if step.weighted]

    def consumers(self) -> dict[str, list[Step]]:
        """Who reads each tensor."""
        found: dict[str, list[Step]] = {}
        for step in self.steps:
            for name in step.inputs:
                found.setdefault(name, []).append(step)
        return found

    def run(
        self,
        images: Any,
        call: "Callable[[Step, list[Tensor]], Tensor] | None" = None,
    ) -> Iterator[tuple[Step, Tensor]]:
        """Computes step after step; a tensor is forgotten as soon as nobody needs it any more.

        Args:
            call: what to compute instead of `apply`.
        """
        call = call or apply
        left = {name: len(steps) for name, steps in self.consumers().items()}
        needed = self._needed()
        tensors: dict[str, Tensor] = {self.input: keras.ops.convert_to_tensor(images)}
        for step in self.steps:
            if step.name in needed:
                tensors[step.name] = call(step, [tensors[name] for name in step.inputs])
                yield step, tensors[step.name]
            for name in step.inputs:
                left[name] -= 1
                if not left[name]:
                    tensors.pop(name, None)

    def _needed(self) -> set[str]:
        """What the outputs depend on."""
        needed = set(self.outputs)
        for step in reversed(self.steps):
            if step.name in needed:
                needed.update(step.inputs)
        return needed


def apply(step: Step, inputs: list[Tensor]) -> Tensor:
    """What the layer itself computes, in inference mode."""
    return step.layer(inputs[0] if len(inputs) == 1 else inputs)


def linear_part(step: Step, inputs: list[Tensor]) -> Tensor:
    """The layer's output before its activation; for a convolution or a dense layer."""
    activation = step.layer.activation
    step.layer.activation = keras.activations.linear
    try:
        return apply(step, inputs)
    finally:
        step.layer.activation = activation


def batches(images: np.ndarray, size: int = 32) -> Iterator[np.ndarray]:
    """The images in parts that fit into memory with everything a network makes of them."""
    for start in range(0, len(images), size):
        yield images[start : start + size]


def whole_batches(images: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """The images in batches of one size; the last is filled up from the beginning."""
    for start in range(0, len(images), size):
        yield images[np.arange(start, start + size) % len(images)]


def spread(images: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the images, evenly spread over all of them."""
    if len(images) <= count:
        return images
    chosen: np.ndarray = images[np.linspace(0, len(images) - 1, count).round().astype(int)]
    return chosen


def that_fit(steps: Steps, images: np.ndarray, count: int, tensor_bytes: int) -> np.ndarray:
    """At most `count` of the images, evenly spread, all at once: no tensor of the network gets above `tensor_bytes`."""
    largest = max(int(np.prod(tensor.shape)) for _, tensor in steps.run(images[:1]))
    return spread(images, max(1, min(count, tensor_bytes // (largest * images.itemsize))))


def copied(model: Any) -> Any:
    """A model of its own with the same layers, weights and metadata."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    set_metadata(copy, get_metadata(model))
    return copy


def kernel_of(layer: Any) -> np.ndarray:
    """Its kernel in float64; output channels on the last axis."""
    return to_numpy(layer.kernel).astype(np.float64)


def bias_of(layer: Any) -> np.ndarray:
    """Its bias in float64; zeros where it has none."""
    return to_numpy(layer.bias).astype(np.float64) if layer.use_bias else np.zeros(layer.kernel.shape[-1])


def assign(variable: Any, array: np.ndarray) -> None:
    """Stores `array` in the variable's own precision."""
    variable.assign(keras.ops.convert_to_tensor(array, dtype=variable.dtype))
