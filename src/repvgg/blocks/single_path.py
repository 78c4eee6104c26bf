"""A block's deploy form, made of stock Keras layers only."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.shapes import KernelSize, sides_of
from repvgg.blocks.squeeze_excite import pointwise_layer, pool_layer
from repvgg.core import fold
from repvgg.core.architecture import SqueezeExcite

Tensor = Any

_PAD, _POOL, _DOWN, _UP, _SCALE, _ACTIVATION = "_pad", "_se_pool", "_se_down", "_se_up", "_se_scale", "_activation"


class SinglePath:
    """[ZeroPadding2D ->] Conv2D, and the layers of channel attention where the block has it.

    The convolution carries the block's name, the layers around it that name and a suffix, so that the form can be
    found again in a model that was loaded from a file (`SinglePath.find`).
    """

    def __init__(self, layers: Mapping[str, Any]) -> None:
        self.layers = dict(layers)

    @classmethod
    def make(
        cls,
        name: str,
        filters: int,
        *,
        strides: int = 1,
        groups: int = 1,
        dilation_rate: int = 1,
        kernel_size: KernelSize = 3,
        squeeze_excite: SqueezeExcite | None = None,
        activation: Any = "relu",
        data_format: str = "channels_last",
        dtype: Any = None,
        initializer: Any = "zeros",
    ) -> "SinglePath":
        """New layers with fresh weights."""
        shared: dict[str, Any] = {"data_format": data_format, "dtype": dtype}
        activation = keras.activations.get(activation)
        late = squeeze_excite is not None and squeeze_excite.position == "before_activation"
        layers: dict[str, Any] = {}
        sides = sides_of(kernel_size)
        if strides > 1 and sides != (1, 1):
            # Keras's "same" pads bottom and right only when the size is even and the stride 2.
            pads = tuple(dilation_rate * (side // 2) for side in sides)
            layers[_PAD] = keras.layers.ZeroPadding2D(pads, name=name + _PAD, **shared)
        layers[""] = keras.layers.Conv2D(
            filters,
            sides,
            strides=strides,
            padding="valid" if strides > 1 else "same",
            groups=groups,
            dilation_rate=dilation_rate,
            activation=None if late else activation,
            kernel_initializer=initializer,
            name=name,
            **shared,
        )
        if squeeze_excite is not None:
            hidden = squeeze_excite.hidden(filters)
            layers[_POOL] = pool_layer(name=name + _POOL, **shared)
            layers[_DOWN] = pointwise_layer(hidden, "relu", name=name + _DOWN, **shared)
            layers[_UP] = pointwise_layer(filters, "sigmoid", name=name + _UP, **shared)
            layers[_SCALE] = keras.layers.Multiply(name=name + _SCALE, dtype=dtype)
        if late:
            layers[_ACTIVATION] = keras.layers.Activation(activation, name=name + _ACTIVATION, dtype=dtype)
        return cls(layers)

    @classmethod
    def of_block(cls, block: ReparameterizableBlock) -> "SinglePath":
        """New layers in the shape of `block`; `copy_weights` fills them."""
        path = cls.make(
            block.name,
            block.filters,
            strides=block.strides,
            groups=block.groups,
            dilation_rate=block.dilation_rate,
            kernel_size=block.kernel_size,
            squeeze_excite=block.squeeze_excite,
            activation=block.activation,
            data_format=block.data_format,
            dtype=block.dtype_policy,
        )
        for layer in path.layers.values():
            layer.trainable = block.trainable
        return path

    @classmethod
    def find(cls, name: str, layers: Mapping[str, Any]) -> "SinglePath | None":
        """The form called `name` among the layers of a model, or None."""
        if not isinstance(layers.get(name), keras.layers.Conv2D):
            return None
        suffixes = (_PAD, "", _POOL, _DOWN, _UP, _SCALE, _ACTIVATION)
        return cls({suffix: layers[name + suffix] for suffix in suffixes if name + suffix in layers})

    @property
    def convolution(self) -> Any:
        """The Conv2D layer."""
        return self.layers[""]

    @property
    def squeeze_excite(self) -> SqueezeExcite | None:
        """Its channel attention, as the layers show it."""
        if _SCALE not in self.layers:
            return None
        reduction = self.convolution.filters // self.layers[_DOWN].filters
        return SqueezeExcite("before_activation" if _ACTIVATION in self.layers else "after_activation", reduction)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Wires the layers up on a symbolic or an actual tensor."""
        outputs = self.layers[_PAD](inputs) if _PAD in self.layers else inputs
        outputs = self.convolution(outputs)
        if _SCALE in self.layers:
            weights = self.layers[_UP](self.layers[_DOWN](self.layers[_POOL](outputs)))
            outputs = self.layers[_SCALE]([outputs, weights])
        return self.layers[_ACTIVATION](outputs) if _ACTIVATION in self.layers else outputs

    def copy_weights(self, block: ReparameterizableBlock) -> None:
        """Folds `block` in float64 and stores the result; the layers must have been called or built."""
        linear: fold.Linear = block.folded()
        dtype = self.convolution.variable_dtype
        self.convolution.kernel.assign(_as(linear.kernel, dtype))
        self.convolution.bias.assign(_as(linear.bias, dtype))
        if block.attention is not None:
            self.layers[_DOWN].set_weights(block.attention.down.get_weights())
            self.layers[_UP].set_weights(block.attention.up.get_weights())


def _as(array: np.ndarray, dtype: str) -> Any:
    return keras.ops.convert_to_tensor(array, dtype=dtype)
