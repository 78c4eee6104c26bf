"""A functional Keras model as a list of calls, read from its public configuration."""

from dataclasses import dataclass
from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.models.layers import Functional

TensorKey = tuple[str, int, int]
"""(layer name, which call of it, which output of that call), as Keras writes it."""


@dataclass(frozen=True)
class Call:
    """One call of one layer; only models inside of the model have more than one output."""

    layer: Any
    inputs: tuple[TensorKey, ...]
    outputs: tuple[TensorKey, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]

    @property
    def output(self) -> TensorKey:
        """The first output, by which the call itself is known."""
        return self.outputs[0]


class FunctionalGraph:
    """The calls of a functional or Sequential model in an order in which they can be computed.

    Attributes:
        inputs: the model's inputs.
        outputs: its outputs by name; 'output', or 'output0', 'output1' ... where they have none.
        flat_outputs: its outputs in the order in which Keras numbers them, for a model that contains this one.
        calls: every call of a layer.

    Raises:
        InputError: if the model is neither, so that its graph is unknown.
    """

    def __init__(self, model: Any) -> None:
        if isinstance(model, keras.Sequential):
            model = keras.Model(model.inputs, model.outputs[0], name=model.name)
        config = model.get_config()
        if "input_layers" not in config:
            raise InputError(f"'{model.name}' is not a functional model, so its graph is unknown. Convert it first.")
        self.inputs = _keys(config["input_layers"])
        output_layers = _counted_from_0(config["output_layers"], model)
        self.outputs = _named(output_layers)
        self.flat_outputs = [leaf.key for leaf in keras.tree.flatten(_leaves(output_layers))]
        waiting: list[Call] = []
        for entry in config["layers"]:
            for index, node in enumerate(entry["inbound_nodes"]):
                tensors = _tensors(node["args"]) + _tensors(node["kwargs"])
                layer = model.get_layer(entry["name"])
                count = len(layer.outputs) if isinstance(layer, keras.Model) else 1
                waiting.append(
                    Call(
                        layer=layer,
                        inputs=tuple(_key(tensor["keras_history"]) for tensor in tensors),
                        outputs=tuple((entry["name"], index, place) for place in range(count)),
                        input_shapes=tuple(tuple(tensor["shape"]) for tensor in tensors),
                    )
                )
        self.calls = _ordered(waiting, set(self.inputs))


@dataclass(frozen=True)
class _Leaf:
    """A key that is not a container, so that Keras's order of a structure can be had."""

    key: TensorKey


def _counted_from_0(value: Any, model: Any) -> Any:
    """Keys of outputs as calls have them: Keras counts a model's calls from 1 here, and from 0 everywhere else."""
    if _is_key(value):
        name, call, tensor = value
        return [name, call - 1 if isinstance(model.get_layer(name), Functional) else call, tensor]
    if isinstance(value, dict):
        return {name: _counted_from_0(item, model) for name, item in value.items()}
    return [_counted_from_0(item, model) for item in value]


def _leaves(value: Any) -> Any:
    if _is_key(value):
        return _Leaf(_key(value))
    if isinstance(value, dict):
        return {name: _leaves(item) for name, item in value.items()}
    return [_leaves(item) for item in value]


def _key(history: list[Any]) -> TensorKey:
    name, node, tensor = history
    return str(name), int(node), int(tensor)


def _is_key(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 3 and isinstance(value[0], str)


def _keys(value: Any) -> list[TensorKey]:
    if _is_key(value):
        return [_key(value)]
    items = value.values() if isinstance(value, dict) else value
    return [key for item in items for key in _keys(item)]


def _named(value: Any) -> dict[str, TensorKey]:
    if _is_key(value):
        return {"output": _key(value)}
    items = value.items() if isinstance(value, dict) else ((f"output{i}", item) for i, item in enumerate(value))
    flat: dict[str, TensorKey] = {}
    for name, item in items:
        inner = _named(item)
        flat.update(
            {name: next(iter(inner.values()))} if _is_key(item) else {f"{name}/{k}": v for k, v in inner.items()}
        )
    return flat


def _tensors(value: Any) -> list[dict[str, Any]]:
    """The tensors among a call's arguments, in order."""
    if isinstance(value, dict):
        if value.get("class_name") == "__keras_tensor__":
            return [value["config"]]
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in _tensors(item)]
    return []


def _ordered(calls: list[Call], known: set[TensorKey]) -> list[Call]:
    ordered: list[Call] = []
    while calls:
        ready = [call for call in calls if all(key in known for key in call.inputs)]
        if not ready:
            raise InputError(
                "The model's graph uses outputs of a layer that are not its first, which is not supported."
            )
        ordered += ready
        known |= {key for call in ready for key in call.outputs}
        done = {call.output for call in ready}
        calls = [call for call in calls if call.output not in done]
    return ordered
