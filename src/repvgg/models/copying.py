"""A functional model built anew from other layers."""

from collections.abc import Callable
from typing import Any

import keras

from repvgg.blocks.layers import SinglePath
from repvgg.models.layers import Functional, plain_model


class Copier:
    """Builds models anew, each layer replaced once, so that what was shared stays shared.

    Args:
        replace: gives what stands in a layer's place: a layer, or a block's `SinglePath`.
        opens: whether a nested functional or Sequential model is built anew too, rather than replaced as one layer.
    """

    def __init__(self, replace: Callable[[Any], Any], opens: Callable[[Any], bool] = lambda _: True) -> None:
        self._replace, self._opens = replace, opens
        self._originals: dict[int, Any] = {}
        self._copies: dict[int, Any] = {}
        self._opened: set[int] = set()

    def model(self, model: Any) -> Any:
        """A copy of a functional or Sequential model. Its layers have weights once the whole of it is wired up."""
        return keras.models.clone_model(plain_model(model), clone_function=self.layer, call_function=_call)

    def layer(self, layer: Any) -> Any:
        """What stands in a layer's place: the same whenever it is asked for."""
        key = id(layer)
        if key not in self._copies:
            self._originals[key] = layer
            if isinstance(layer, Functional | keras.Sequential) and self._opens(layer):
                self._opened.add(key)
                self._copies[key] = self.model(layer)
            else:
                self._copies[key] = self._replace(layer)
        return self._copies[key]

    def pairs(self) -> list[tuple[Any, Any]]:
        """Every layer with its replacement; models that were built anew are not among them."""
        return [(self._originals[key], copy) for key, copy in self._copies.items() if key not in self._opened]


def _call(layer: Any, *args: Any, **kwargs: Any) -> Any:
    # A stack of stock layers has no training mode, so the call's `training` argument ends here.
    return layer(args[0] if args else kwargs["inputs"]) if isinstance(layer, SinglePath) else layer(*args, **kwargs)
