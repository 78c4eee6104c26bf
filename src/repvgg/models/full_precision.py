"""A network in the precision of its weights: what it is stored, verified and exported as, however it was trained.

Mixed precision calculates in 16 bits for speed, from weights in 32. Two forms of a network that both round to 16 bits
on the way differ by what rounding does (5e-3 of the largest logit), which says nothing about the weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from repvgg.models.layers import Functional, all_layers, plain_model, require_float_weights, settle_state
from repvgg.models.metadata import get_metadata, set_metadata

HALF = ("float16", "bfloat16")
_WIDE: Mapping[str, str] = {name: "float32" for half in HALF for name in (half, f"mixed_{half}")}


def in_full_precision(model: Any) -> Any:
    """The same network in float32: a copy of a functional or Sequential model of which a layer has 16 bits.

    That is so for the policies "mixed_float16" and "mixed_bfloat16", whose weights are in float32, and for "float16"
    and "bfloat16", whose weights are what 16 bits can say. Other models come back as they are, and so do subclassed
    ones, whose structure Keras does not know.

    Raises:
        InputError: if there are weights besides those in float: of layers that Keras quantized, or LoRA's.
    """
    if not isinstance(model, Functional | keras.Sequential) or not model.built or not _is_half(model):
        return model
    require_float_weights(model)

    def widened(layer: Any) -> Any:
        return type(layer).from_config(_widened(layer.get_config()))

    with no_half_policy():
        copy = keras.models.clone_model(plain_model(model), clone_function=widened)
    copy.set_weights([_wide_array(weight) for weight in model.weights])
    settle_state(copy)
    set_metadata(copy, get_metadata(model))
    return copy


def _is_half(model: Any) -> bool:
    return any({layer.compute_dtype, layer.variable_dtype} & set(HALF) for layer in all_layers(model))


def _widened(config: Any) -> Any:
    """A layer's configuration, with that of everything inside it, in 32 bits."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            name = config["config"]["name"]
            return {**config, "config": {"name": _WIDE.get(name, name)}}
        return {
            key: _WIDE.get(value, value)
            if key in ("dtype", "default_policy") and isinstance(value, str)
            else _widened(value)
            for key, value in config.items()
        }
    if isinstance(config, list | tuple):
        return type(config)(_widened(item) for item in config)
    return config


def _wide_array(weight: Any) -> np.ndarray:
    value = keras.ops.cast(weight, "float32") if str(weight.dtype) in HALF else weight
    return np.asarray(keras.ops.convert_to_numpy(value))


@contextmanager
def no_half_policy() -> Iterator[None]:
    """Inside, layers and models that are made without a word about precision are in float32 and not in 16 bits."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_WIDE.get(before.name, before))
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
