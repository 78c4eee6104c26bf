"""RepVGGplus's auxiliary classifiers: extra supervision while training, gone after conversion."""

from typing import Any

import keras

from repvgg.blocks.branches import ConvBatchNorm, torch_initializer
from repvgg.blocks.shapes import Shape, channels_of
from repvgg.core.architecture import EPSILON

Tensor = Any


@keras.saving.register_keras_serializable(package="repvgg")
class AuxiliaryClassifier(keras.layers.Layer):
    """conv 3x3 stride 2, BN, ReLU, global average, Dense: (N, H, W, C) -> logits (N, num_classes).

    An output of a model that comes straight from this layer is left out by `repvgg.reparameterize`.
    """

    def __init__(
        self, num_classes: int, *, epsilon: float = EPSILON, data_format: str = "channels_last", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.epsilon = epsilon
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)
        self.conv = ConvBatchNorm(
            channels,
            3,
            strides=2,
            epsilon=self.epsilon,
            data_format=self.data_format,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.pool = keras.layers.GlobalAveragePooling2D(
            data_format=self.data_format, dtype=self.dtype_policy, name="pool"
        )
        self.classifier = keras.layers.Dense(
            self.num_classes,
            kernel_initializer=torch_initializer(),
            dtype=self.dtype_policy.variable_dtype,
            name="classifier",
        )
        self.conv.build(input_shape)
        self.classifier.build((None, channels))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        features = keras.ops.relu(self.conv(inputs, training=training))
        return self.classifier(self.pool(features))

    def compute_output_spec(self, inputs: Any, training: bool = False) -> Any:  # noqa: ARG002
        return keras.KerasTensor((inputs.shape[0], self.num_classes), dtype=self.dtype_policy.variable_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"num_classes": self.num_classes, "epsilon": self.epsilon, "data_format": self.data_format}
        return {**super().get_config(), **own}
