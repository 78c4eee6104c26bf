"""Walking through the layers of any Keras model."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras


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
    if isinstance(copy, keras.layers.Normalization):
        copy.finalize_state()


def _may_hold_layers(value: Any) -> bool:
    return isinstance(value, keras.Layer | Mapping | list | tuple | set)
