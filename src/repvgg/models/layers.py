"""Walking through the layers of any Keras model."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from repvgg.base.errors import ConversionError

Functional = type(keras.Model(*(2 * [keras.Input((1,))])))
"""Keras gives its class of functional models no public name."""


def all_layers(root: Any) -> Iterator[Any]:
    """Every layer inside `root`, at any depth, itself included; each once, in the order of construction.

    Functional and Sequential models tell their layers; a subclassed model or a composite layer holds them as
    attributes, in lists or in dicts.
    """
    seen: set[int] = set()
    stack: list[Any] = [root]
    while stack:
        item = stack.pop()
        if id(item) in seen:
            continue
        if isinstance(item, keras.Layer):
            seen.add(id(item))
            yield item
            inner = list(item.layers) if isinstance(item, keras.Model) else []
            inner += [value for value in vars(item).values() if _may_hold_layers(value)]
            stack.extend(reversed(inner))
        elif isinstance(item, Mapping):
            seen.add(id(item))
            stack.extend(reversed([value for value in item.values() if _may_hold_layers(value)]))
        elif isinstance(item, list | tuple | set):
            seen.add(id(item))
            stack.extend(reversed([value for value in item if _may_hold_layers(value)]))


def copy_state(original: Any, copy: Any) -> None:
    """Gives a layer the weights of another of its kind, and what Keras derives from them when it is asked to only."""
    copy.set_weights(original.get_weights())
    settle_state(copy)


def settle_state(model: Any) -> None:
    """What Keras derives from weights when it is asked to only, in a layer or model that was given some."""
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()


def _may_hold_layers(value: Any) -> bool:
    return isinstance(value, keras.Layer | Mapping | list | tuple | set)


def plain_model(model: Any) -> Any:
    """A functional or Sequential model as a plain functional one over the same layers."""
    outputs = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    return keras.Model(model.inputs if isinstance(model, keras.Sequential) else model.input, outputs, name=model.name)


def require_float_weights(model: Any) -> None:
    """Makes sure that what a layer calculates with is its weights in float.

    Raises:
        ConversionError: naming a layer that Keras quantized (`model.quantize`), or that has LoRA weights.
    """
    for layer in all_layers(model):
        kind = f"Layer '{layer.name}' ({type(layer).__name__})"
        if layer.quantization_mode is not None:
            raise ConversionError(
                f"{kind} of '{model.name}' was quantized by Keras ({layer.quantization_mode}), and only weights in "
                "float are converted, exported and saved as checkpoints. Take the model as it was before "
                "model.quantize; repvgg.export(..., precision='int8') makes INT8 files of that."
            )
        if getattr(layer, "lora_enabled", False):
            raise ConversionError(
                f"{kind} of '{model.name}' has LoRA weights (enable_lora) beside its kernel, and only plain weights "
                "are converted, exported and saved as checkpoints. Put the sum of both, which `layer.kernel` gives, "
                "into a layer without them."
            )
