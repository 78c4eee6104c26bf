"""Fake quantization: layers that calculate in training as integers will later, with rounded inputs and rounded kernels.

Rounding has no useful derivative, so gradients pass it as if it were not there; where a value is cut off at the end of
its range, none passes (the straight-through estimator).

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference, CVPR
2018, arXiv 1712.05877, section 3: symmetric kernels over their whole range, inputs over a moving average of what is
seen in batches, with a zero point that stands for 0 exactly.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.blocks import ops
from repvgg.blocks.base import ReparameterizableBlock
from repvgg.blocks.shapes import Shape

Tensor = Any


@dataclass(frozen=True)
class Precision:
    """How a layer is quantized.

    Attributes:
        per_channel: a grid for each output channel of the kernel; otherwise one for all.
        momentum: share of the old range that each training batch leaves.
        calibration_batches: so many batches of training only measure ranges, and inputs are rounded from then on.

    Raises:
        InputError: for numbers that make no grid.
    """

    weight_bits: int = 8
    activation_bits: int = 8
    per_channel: bool = False
    momentum: float = 0.99
    calibration_batches: int = 4

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            bits = getattr(self, name)
            if not isinstance(bits, int) or not 2 <= bits <= 16:
                raise InputError(f"`{name}` is a whole number from 2 to 16. Received: {bits!r}.")
        if not 0 <= self.momentum < 1:
            raise InputError(f"`momentum` is at least 0 and below 1. Received: {self.momentum!r}.")
        if self.calibration_batches < 1:
            raise InputError(f"`calibration_batches` is at least 1. Received: {self.calibration_batches!r}.")

    @property
    def weight_levels(self) -> int:
        """Steps of a kernel's grid, from 0 to the largest weight."""
        levels: int = 2 ** (self.weight_bits - 1) - 1
        return levels

    @classmethod
    def of(cls, settings: "Precision | Mapping[str, Any]") -> "Precision":
        """From itself, or from what a configuration holds."""
        return settings if isinstance(settings, Precision) else cls(**settings)


def weight_scale(kernel: Tensor, precision: Precision) -> Tensor:
    """Step of the kernel's grid, as (1, ..., 1, filters) or (1, ..., 1): the largest weight is the last point."""
    axes = tuple(range(len(kernel.shape) - (1 if precision.per_channel else 0)))
    largest = keras.ops.max(keras.ops.abs(keras.ops.stop_gradient(kernel)), axis=axes, keepdims=True)
    levels = precision.weight_levels
    return keras.ops.where(largest > 0, largest, float(levels)) / levels


def fake_quantized_kernel(kernel: Tensor, precision: Precision) -> Tensor:
    """The kernel on its grid; the gradient is that of the kernel itself."""
    scale = weight_scale(kernel, precision)
    return _in_place_of(keras.ops.round(kernel / scale) * scale, kernel)


def fake_quantized_bias(bias: Tensor, kernel: Tensor, input_range: "FakeQuantization", precision: Precision) -> Tensor:
    """The bias in whole units of what products of the two grids are counted in, as integers add it."""
    step = keras.ops.reshape(weight_scale(kernel, precision), (-1,)) * input_range.grid()[0]
    rounded = _in_place_of(keras.ops.round(bias / step) * step, bias)
    return keras.ops.where(input_range.calibrated(), rounded, bias)


def _in_place_of(rounded: Tensor, tensor: Tensor) -> Tensor:
    """`rounded`, to the last digit, with the gradient of `tensor`."""
    return keras.ops.stop_gradient(rounded) + (tensor - keras.ops.stop_gradient(tensor))


@keras.saving.register_keras_serializable(package="repvgg")
class FakeQuantization(keras.layers.Layer):
    """Rounds its input to a grid whose range follows the batches it sees in training; the same shape out as in.

    Set `trainable` to False to keep the range as it is. The range is not a trainable weight, so no optimizer and no
    weight decay touches it.
    """

    def __init__(self, precision: Precision | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.precision = Precision.of(precision)

    def build(self, input_shape: Shape) -> None:  # noqa: ARG002
        def weight(name: str) -> Any:
            # Replicas of one machine see batches of their own, and the mean of them is what is read and saved.
            return self.add_weight(
                name=name, shape=(), initializer="zeros", trainable=False, autocast=False, aggregation="mean"
            )

        self.minimum = weight("minimum")
        self.maximum = weight("maximum")
        self.batches = weight("batches")

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training and self.trainable:
            self._observe(keras.ops.stop_gradient(inputs))
        scale, zero = self.grid()
        levels = 2**self.precision.activation_bits - 1
        codes = keras.ops.clip(keras.ops.round(inputs / scale) + zero, 0, levels)
        clipped = keras.ops.clip(inputs, -zero * scale, (levels - zero) * scale)
        rounded = _in_place_of((codes - zero) * scale, clipped)
        return keras.ops.where(self.calibrated(), rounded, inputs)

    def calibrated(self) -> Tensor:
        """Whether enough batches were seen to round anything, as a boolean scalar."""
        return self.batches.value >= self.precision.calibration_batches

    def grid(self) -> tuple[Tensor, Tensor]:
        """Scale and zero point, as scalars."""
        levels = 2**self.precision.activation_bits - 1
        # 0 is always inside: padding and ReLU give it, and it must not be rounded.
        low, high = keras.ops.minimum(self.minimum.value, 0), keras.ops.maximum(self.maximum.value, 0)
        scale = keras.ops.where(high > low, (high - low) / levels, 1.0)
        return scale, keras.ops.round(-low / scale)

    def _observe(self, inputs: Tensor) -> None:
        # The first batch sets the range, and early ones weigh as much as any other.
        share = keras.ops.minimum(self.precision.momentum, self.batches.value / (self.batches.value + 1))
        low, high = keras.ops.min(inputs), keras.ops.max(inputs)
        self.minimum.assign(self.minimum.value * share + low * (1 - share))
        self.maximum.assign(self.maximum.value * share + high * (1 - share))
        self.batches.assign(self.batches.value + 1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "precision": asdict(self.precision)}


def _input_range(precision: Precision, dtype: Any) -> FakeQuantization:
    return FakeQuantization(precision, dtype=dtype, name="input_range")


@keras.saving.register_keras_serializable(package="repvgg")
class QuantizedBlock(keras.layers.Layer):
    """A re-parameterizable block as it will be in integers: the equivalent kernel and the input fake-quantized.

    The branches' weights are what is trained. Their batch normalizations use the running statistics and keep them, so
    the kernel is a function of weights alone. Channel attention stays in float.
    """

    def __init__(
        self, block: ReparameterizableBlock | Mapping[str, Any], precision: Precision | Mapping[str, Any], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.block = keras.saving.deserialize_keras_object(block) if isinstance(block, Mapping) else block
        self.precision = Precision.of(precision)
        self.input_range = _input_range(self.precision, self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        if not self.block.built:  # one that was read from a configuration is
            self.block.build(input_shape)
        self.input_range.build(input_shape)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        block = self.block
        inputs = self.input_range(inputs, training=training)
        kernel, bias = block.get_equivalent_kernel_bias()
        bias = fake_quantized_bias(bias, kernel, self.input_range, self.precision)
        outputs = ops.conv2d(
            inputs,
            fake_quantized_kernel(kernel, self.precision),
            strides=block.strides,
            dilation_rate=block.dilation_rate,
            groups=block.groups,
            data_format=block.data_format,
        )
        shape = (1, 1, 1, -1) if block.data_format == "channels_last" else (1, -1, 1, 1)
        return block.activate(outputs + keras.ops.reshape(bias, shape))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return self.block.compute_output_shape(input_shape)

    def get_config(self) -> dict[str, Any]:
        block = keras.saving.serialize_keras_object(self.block)
        return {**super().get_config(), "block": block, "precision": asdict(self.precision)}


class _FakeQuantizedInput(keras.layers.Layer):
    """Mixed into one of Keras's layers: a `FakeQuantization` in front of it."""

    def __init__(self, *arguments: Any, precision: Precision | Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.precision = Precision.of(precision)
        self.input_range = _input_range(self.precision, self.dtype_policy)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.input_range.build(input_shape)

    def fake_quantized_weights(self) -> tuple[Tensor, Tensor]:
        """Kernel and bias on their grids; after the input was rounded, whose grid the bias needs."""
        kernel = keras.ops.convert_to_tensor(self.kernel)
        bias = keras.ops.convert_to_tensor(self.bias) if self.use_bias else keras.ops.zeros(kernel.shape[-1:])
        bias = fake_quantized_bias(bias, kernel, self.input_range, self.precision)
        return fake_quantized_kernel(kernel, self.precision), bias

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "precision": asdict(self.precision)}


@keras.saving.register_keras_serializable(package="repvgg")
class QuantizedConv2D(_FakeQuantizedInput, keras.layers.Conv2D):
    """Keras's Conv2D with kernel and input fake-quantized."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = self.input_range(inputs, training=training)
        kernel, bias = self.fake_quantized_weights()
        shape = (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1)
        return self.activation(self.convolution_op(inputs, kernel) + keras.ops.reshape(bias, shape))


@keras.saving.register_keras_serializable(package="repvgg")
class QuantizedDense(_FakeQuantizedInput, keras.layers.Dense):
    """Keras's Dense with kernel and input fake-quantized."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        inputs = self.input_range(inputs, training=training)
        kernel, bias = self.fake_quantized_weights()
        return self.activation(keras.ops.matmul(inputs, kernel) + bias)


@keras.saving.register_keras_serializable(package="repvgg")
class QuantizedGlobalAveragePooling2D(_FakeQuantizedInput, keras.layers.GlobalAveragePooling2D):
    """Keras's GlobalAveragePooling2D with its input fake-quantized.

    Runtimes keep a convolution in integers only where its output is rounded too, and this is what reads the last one's.
    """

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return super().call(self.input_range(inputs, training=training))


QUANTIZED = (QuantizedBlock, QuantizedConv2D, QuantizedDense, QuantizedGlobalAveragePooling2D)
