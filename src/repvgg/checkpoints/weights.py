"""Canonical tensors and the variables of a Keras model: which belongs to which, and how each is laid out."""

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from repvgg.base.errors import CheckpointError
from repvgg.blocks.kind import NORM_LEAVES
from repvgg.blocks.layers import AuxiliaryClassifier, BatchNorm, SinglePath
from repvgg.checkpoints.canonical import CLASSIFIER, REPARAM, block_prefix
from repvgg.checkpoints.mapped import drop_pages
from repvgg.models.recover import Recovered

Array = npt.NDArray[Any]

_KERNEL_AXES = (3, 2, 0, 1)
"""Keras keeps (height, width, in, out), PyTorch (out, in, height, width)."""


@dataclass(frozen=True)
class Slot:
    """One variable of a Keras model that a tensor goes into.

    Args:
        variable: the Keras variable.
        axes: the order of its axes in PyTorch; None where both agree.
    """

    variable: Any
    axes: tuple[int, ...] | None = None

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Its shape in PyTorch."""
        shape = tuple(self.variable.shape)
        return shape if self.axes is None else tuple(shape[axis] for axis in self.axes)

    def read(self) -> Array:
        """Its value in PyTorch's layout."""
        value = np.asarray(keras.ops.convert_to_numpy(self.variable))
        return np.ascontiguousarray(value if self.axes is None else value.transpose(self.axes))

    def fill(self, tensor: Array) -> None:
        """Takes its value from PyTorch's layout, in the variable's own type."""
        value = tensor if self.axes is None else tensor.transpose(np.argsort(self.axes))
        # A copy even where none is needed: some backends would keep a window on the array, and so on the file.
        self.variable.assign(np.array(value, dtype=self.variable.dtype, order="C", copy=True))


def slots_of(network: Recovered) -> dict[str, Slot]:
    """Every variable of a model by the canonical name of its tensor."""
    slots: dict[str, Slot] = {}
    for unit, spec in zip(network.units.values(), network.architecture.blocks(network.in_channels), strict=True):
        prefix = block_prefix(spec.stage, spec.index)
        attention = unit.squeeze_excite
        if attention is not None:
            inner = "se." if attention.position == "before_activation" else "post_se."
            down, up = _attention_layers(unit)
            slots.update(_convolution(f"{prefix}{inner}down", down))
            slots.update(_convolution(f"{prefix}{inner}up", up))
        if isinstance(unit, SinglePath):
            slots.update(_convolution(f"{prefix}{REPARAM}", unit.convolution))
        elif unit.deploy:
            slots.update(_convolution(f"{prefix}{REPARAM}", unit.reparam))
        else:
            for parameter in unit.kind.parameters(unit.shape):
                axes = _KERNEL_AXES if parameter.role == "kernel" else None
                slots[prefix + parameter.tensor] = Slot(unit.variable(parameter.path), axes)
    if network.classifier is not None:
        slots.update(_linear(CLASSIFIER, network.classifier))
    for name, head in network.auxiliary.items():
        slots.update(_auxiliary(name, head))
    return slots


def fill(slots: dict[str, Slot], tensors: MutableMapping[str, Array]) -> None:
    """Moves tensors into variables, each into its own, and takes them out of `tensors` on the way.

    Raises:
        CheckpointError: unless both sides have the same names and shapes; no variable has changed then.
    """
    problems = [
        *(f"no place for {name}" for name in tensors if name not in slots),
        *(f"nothing for {name}" for name in slots if name not in tensors),
        *(
            f"{name} has the shape {tensors[name].shape}, not {slot.torch_shape}"
            for name, slot in slots.items()
            if name in tensors and tensors[name].shape != slot.torch_shape
        ),
    ]
    if problems:
        raise CheckpointError(f"The tensors do not fit the model: {'; '.join(problems)}.")
    for name, slot in slots.items():
        tensor = tensors.pop(name)
        slot.fill(tensor)
        drop_pages(tensor)


def _attention_layers(unit: Any) -> tuple[Any, Any]:
    if isinstance(unit, SinglePath):
        return unit.layers["_se_down"], unit.layers["_se_up"]
    return unit.attention.down, unit.attention.up


def _convolution(name: str, layer: Any) -> Iterator[tuple[str, Slot]]:
    yield f"{name}.weight", Slot(layer.kernel, _KERNEL_AXES)
    yield f"{name}.bias", Slot(layer.bias)


def _norm(name: str, layer: BatchNorm) -> Iterator[tuple[str, Slot]]:
    for leaf, theirs in NORM_LEAVES.items():
        yield f"{name}.{theirs}", Slot(getattr(layer, leaf))


def _linear(name: str, layer: Any) -> Iterator[tuple[str, Slot]]:
    yield f"{name}.weight", Slot(layer.kernel, (1, 0))
    yield f"{name}.bias", Slot(layer.bias)


def _auxiliary(name: str, head: AuxiliaryClassifier) -> Iterator[tuple[str, Slot]]:
    yield f"{name}.0.conv.weight", Slot(head.conv.kernel, _KERNEL_AXES)
    yield from _norm(f"{name}.0.bn", head.conv.norm)
    yield from _linear(f"{name}.3", head.classifier)
