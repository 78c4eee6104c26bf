"""Channel attention (squeeze-and-excitation) as the RepVGG family uses it."""

from dataclasses import asdict
from typing import Any

import keras

from repvgg.blocks import ops
from repvgg.blocks.shapes import Shape, channels_of
from repvgg.core.architecture import SqueezeExcite

Tensor = Any


def pool_layer(data_format: str, **kwargs: Any) -> Any:
    """Squeeze: the mean of each channel, axes kept."""
    return keras.layers.GlobalAveragePooling2D(data_format=data_format, keepdims=True, **kwargs)


def pointwise_layer(filters: int, activation: str, data_format: str, **kwargs: Any) -> Any:
    """Excite: one of the two 1x1 convolutions on the squeezed vector."""
    return keras.layers.Conv2D(filters, 1, activation=activation, data_format=data_format, **kwargs)


@keras.saving.register_keras_serializable(package="repvgg")
class SqueezeExcitation(keras.layers.Layer):
    """x * sigmoid(up(relu(down(mean(x))))), the same shape out as in."""

    def __init__(self, settings: SqueezeExcite, *, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)
        shared = {"data_format": self.data_format, "dtype": self.dtype_policy}
        hidden = self.settings.hidden(channels)
        self.pool = pool_layer(name="pool", **shared)
        self.down = pointwise_layer(hidden, "relu", name="down", **shared)
        self.up = pointwise_layer(channels, "sigmoid", name="up", **shared)
        last = self.data_format == "channels_last"
        self.down.build((None, 1, 1, channels) if last else (None, channels, 1, 1))
        self.up.build((None, 1, 1, hidden) if last else (None, hidden, 1, 1))

    def call(self, inputs: Tensor) -> Tensor:
        return inputs * self._pointwise(self.up, self._pointwise(self.down, self.pool(inputs)))

    def _pointwise(self, layer: Any, inputs: Tensor) -> Tensor:
        if self.data_format == "channels_last":
            return layer(inputs)
        # Without oneDNN, Keras's own layer does not run on TensorFlow's CPU with channels first.
        outputs = ops.conv2d(inputs, layer.kernel.value, data_format=self.data_format)
        return layer.activation(outputs + keras.ops.reshape(layer.bias, (1, -1, 1, 1)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "settings": asdict(self.settings),
            "data_format": self.data_format,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "SqueezeExcitation":
        return cls(**{**config, "settings": SqueezeExcite(**config["settings"])})
