"""The layers that branches are made of. Their weights can be released, which is how a block sheds them in place."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from repvgg.blocks import ops
from repvgg.blocks.recording import record_input
from repvgg.blocks.shapes import KernelSize, Shape, channels_of, check_groups, sides_of, strided_shape
from repvgg.core import fold
from repvgg.core.architecture import EPSILON

Tensor = Any
Read = Callable[[Any], fold.Array]
"""Turns a Keras variable into the array that folding calculates with."""

MOMENTUM = 0.9
"""PyTorch's default (its 0.1 is Keras's 0.9), as `EPSILON`; Keras's own, 0.99 and 1e-3, train differently."""


def tensor_of(variable: Any) -> Tensor:
    """The backend's own tensor behind a Keras variable; gradients flow through it."""
    return variable.value


def float64_of(variable: Any) -> np.ndarray:
    """A copy of a Keras variable in NumPy float64."""
    return np.asarray(keras.ops.convert_to_numpy(variable.value)).astype(np.float64)


def torch_initializer() -> Any:
    """PyTorch's default for convolutions: uniform in +-1/sqrt(fan_in)."""
    return keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")


@keras.saving.register_keras_serializable(package="repvgg")
class BatchNorm(keras.layers.Layer):
    """Batch normalization with PyTorch's constants, unbiased running variance and one fused operation.

    (N, H, W, C) or (N, C, H, W) in, the same shape out. In training it normalizes with the batch's statistics and
    updates the running ones; in inference, or when `trainable` is False, it uses the running ones.
    """

    def __init__(
        self, *, momentum: float = MOMENTUM, epsilon: float = EPSILON, data_format: str = "channels_last", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)

        def weight(name: str, initializer: str, *, trainable: bool) -> Any:
            # No autocast: fused normalization wants its parameters in the wide dtype. Replicas of one machine update
            # their own running statistics, and the mean of them is what is read and saved.
            return self.add_weight(
                name=name,
                shape=(channels,),
                initializer=initializer,
                trainable=trainable,
                autocast=False,
                aggregation="none" if trainable else "mean",
            )

        self.gamma = weight("gamma", "ones", trainable=True)
        self.beta = weight("beta", "zeros", trainable=True)
        self.moving_mean = weight("moving_mean", "zeros", trainable=False)
        self.moving_variance = weight("moving_variance", "ones", trainable=False)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        record_input(self, inputs, "normalizations")
        if not (training and self.trainable):
            return ops.batch_norm_inference(
                inputs,
                self.gamma.value,
                self.beta.value,
                self.moving_mean.value,
                self.moving_variance.value,
                epsilon=self.epsilon,
                data_format=self.data_format,
            )
        result = ops.batch_norm_training(
            inputs,
            self.gamma.value,
            self.beta.value,
            self.moving_mean.value,
            self.moving_variance.value,
            momentum=self.momentum,
            epsilon=self.epsilon,
            data_format=self.data_format,
        )
        self.moving_mean.assign(result.mean)
        self.moving_variance.assign(result.variance)
        return result.outputs

    def scale_and_shift(self, mean: Tensor, variance: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """What normalizing does in training, as a factor and an addend, each (C,); the running statistics follow.

        Args:
            mean, variance: of the batch, each (C,), the variance divided by
            count: its number of positions.
        """
        if not self.trainable:
            fixed = self.read(tensor_of)
            return fixed.scale, fixed.shift
        # Rounding can take a variance of 0 below it.
        variance = keras.ops.maximum(variance, 0)
        unbiased = variance * count / keras.ops.maximum(count - 1, 1)
        for running, found in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            blend = running.value * self.momentum + keras.ops.stop_gradient(found) * (1 - self.momentum)
            running.assign(blend)
        norm = fold.BatchNorm(self.gamma.value, self.beta.value, mean, variance, self.epsilon)
        return norm.scale, norm.shift

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def read(self, read: Read) -> fold.BatchNorm:
        """Its parameters, as the arithmetic of `repvgg.core.fold` wants them."""
        return fold.BatchNorm(
            gamma=read(self.gamma),
            beta=read(self.beta),
            mean=read(self.moving_mean),
            variance=read(self.moving_variance),
            epsilon=self.epsilon,
        )

    def release(self) -> None:
        """Gives up all weights; the layer cannot be called any more."""
        del self.gamma, self.beta, self.moving_mean, self.moving_variance

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "data_format": self.data_format,
        }


@keras.saving.register_keras_serializable(package="repvgg")
class ChannelScale(keras.layers.Layer):
    """A factor for each channel, 1 in the beginning: (N, H, W, C) or (N, C, H, W) in, the same shape out."""

    def __init__(self, *, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)
        self.scale = self.add_weight(name="scale", shape=(channels,), initializer="ones")

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:  # noqa: ARG002
        shape = (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1)
        return inputs * keras.ops.reshape(self.scale, shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def release(self) -> None:
        """Gives up all weights; the layer cannot be called any more."""
        del self.scale

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "data_format": self.data_format}


class Convolution(keras.layers.Layer):
    """What the convolutions below have in common: a kernel, and PyTorch's padding, or none if `padded` is False.

    (N, H, W, C) -> (N, ceil(H / strides), ceil(W / strides), filters), or with channels first.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: KernelSize,
        *,
        strides: int = 1,
        groups: int = 1,
        dilation_rate: int = 1,
        data_format: str = "channels_last",
        kernel_initializer: Any = None,
        kernel_regularizer: Any = None,
        padded: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.padded = padded
        self.filters = filters
        self.kernel_size = sides_of(kernel_size)
        self.strides = strides
        self.groups = groups
        self.dilation_rate = dilation_rate
        self.data_format = data_format
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        channels = channels_of(input_shape, self.data_format, self.name)
        check_groups(channels, self.filters, self.groups, self.name)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, channels // self.groups, self.filters),
            # Made here, because it draws a seed, and most blocks never build their deploy convolution.
            initializer=self.kernel_initializer or torch_initializer(),
            regularizer=self.kernel_regularizer,
        )

    def convolve(self, inputs: Tensor) -> Tensor:
        """The convolution alone."""
        return self.convolve_with(inputs, self.kernel.value)

    def convolve_with(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """The same with another kernel."""
        return ops.conv2d(
            inputs,
            kernel,
            strides=self.strides,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
            padded=self.padded,
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return strided_shape(input_shape, self.filters, self.strides, self.data_format)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": list(self.kernel_size),
            "strides": self.strides,
            "groups": self.groups,
            "dilation_rate": self.dilation_rate,
            "data_format": self.data_format,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


@keras.saving.register_keras_serializable(package="repvgg")
class Conv(Convolution):
    """A convolution with nothing added, padded as PyTorch does."""

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:  # noqa: ARG002
        return self.convolve(inputs)

    def release(self) -> None:
        """Gives up all weights; the layer cannot be called any more."""
        del self.kernel


class IdentityBasedConv(Conv):
    """A convolution whose weights are the difference from the kernel that returns its input; they begin at 0."""

    def convolve(self, inputs: Tensor) -> Tensor:
        same = fold.identity_kernel(self.filters, self.groups, self.kernel_size)
        return self.convolve_with(inputs, self.kernel.value + keras.ops.convert_to_tensor(same, self.kernel.dtype))


@keras.saving.register_keras_serializable(package="repvgg")
class ConvBatchNorm(Convolution):
    """A convolution without bias, padded as PyTorch does, then `BatchNorm`."""

    def __init__(
        self,
        filters: int,
        kernel_size: KernelSize,
        *,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        initializer = keras.initializers.get(kernel_initializer) or torch_initializer()
        super().__init__(filters, kernel_size, kernel_initializer=initializer, **kwargs)
        self.norm = BatchNorm(
            momentum=momentum, epsilon=epsilon, data_format=self.data_format, dtype=self.dtype_policy, name="norm"
        )

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.norm.build(self.compute_output_shape(input_shape))

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        return self.norm(self.convolve(inputs), training=training)

    def release(self) -> None:
        """Gives up all weights; the layer cannot be called any more."""
        del self.kernel
        self.norm.release()

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.norm.momentum, "epsilon": self.norm.epsilon}


@keras.saving.register_keras_serializable(package="repvgg")
class ConvBias(Convolution):
    """A convolution with bias, padded as PyTorch does: what a block keeps when it is converted in place."""

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer="zeros")

    def call(self, inputs: Tensor) -> Tensor:
        shape = (1, 1, 1, -1) if self.data_format == "channels_last" else (1, -1, 1, 1)
        return self.convolve(inputs) + keras.ops.reshape(self.bias, shape)
