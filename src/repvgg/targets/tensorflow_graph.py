"""The deployed model as a TensorFlow function of plain operations, whatever Keras's backend is.

Keras's own layers would not do: on a CPU they send grouped convolutions through XLA, which other runtimes cannot read,
and with JAX or PyTorch as backend there would be no TensorFlow graph at all. `tf.nn.conv2d` takes groups by the shape
of its kernel, and so do LiteRT and TensorFlow's CPU kernels.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from repvgg.targets import Settings
from repvgg.targets.stock_layers import (
    INPUT,
    NO_PADS,
    Activation,
    Combination,
    Convolution,
    Dense,
    GraphWriter,
    Normalization,
    Pads,
    image_shape,
    scale_and_shift,
)


def build(model: Any, settings: Settings, what: str) -> tuple[Any, Any]:
    """A `tf.Module` that owns the weights, and its concrete function from `images` to a dictionary of outputs.

    Args:
        what: the format that is written, for messages.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    import tensorflow as tf

    module = tf.Module(name="repvgg")
    # A dictionary, so that a checkpoint names each weight by its layer.
    module.weights = {}
    writer = _Writer(tf, settings, module.weights, what)
    shape = image_shape(model, settings, what)
    pixels = settings.preprocessing is not None
    signature = tf.TensorSpec(shape, tf.uint8 if pixels else tf.float32, name=INPUT)
    module.serve = tf.function(
        lambda images: writer.write_model(model, writer.prepared(images)),
        input_signature=[signature],
        autograph=False,
    )
    return module, module.serve.get_concrete_function()


class _Writer(GraphWriter[Any]):
    """Called while TensorFlow traces: operations go into the graph, weights into variables of their own."""

    what: ClassVar[str] = "TensorFlow"

    def __init__(self, tf: Any, settings: Settings, weights: dict[str, Any], what: str) -> None:
        super().__init__(settings)
        self.tf = tf
        self.weights = weights
        self.what = what  # type: ignore[misc]

    def array(self, variable: Any) -> np.ndarray:
        with self.tf.init_scope():  # Values cannot be read inside of a trace.
            return super().array(variable)

    def prepared(self, images: Any) -> Any:
        if self.settings.preprocessing is None:
            return images
        scale, shift = scale_and_shift(self.settings.preprocessing, self.settings.precision)
        return self.tf.cast(images, self.tf.float32) * scale + shift

    def weight(self, name: str, array: np.ndarray) -> Any:
        if name not in self.weights:
            with self.tf.init_scope():
                self.weights[name] = self.tf.Variable(array, trainable=False, name=_safe(name))
        return self.weights[name]

    def biased(self, tensor: Any, name: str, bias: np.ndarray | None) -> Any:
        return tensor if bias is None else self.tf.nn.bias_add(tensor, self.weight(f"{name}/bias", bias))

    def convolve(self, tensor: Any, convolution: Convolution, label: str) -> Any:
        top, left, bottom, right = convolution.pads
        padding: Any = [[0, 0], [top, bottom], [left, right], [0, 0]]
        if convolution.pads == NO_PADS:
            padding = "VALID"
        elif convolution.keeps_size:
            padding = "SAME"
        convolved = self.tf.nn.conv2d(
            tensor,
            self.weight(f"{convolution.name}/kernel", convolution.kernel),
            convolution.strides,
            padding,
            dilations=convolution.dilations,
            name=_safe(label),
        )
        return self.biased(convolved, convolution.name, convolution.bias)

    def pad(self, tensor: Any, pads: Pads, label: str) -> Any:
        top, left, bottom, right = pads
        return self.tf.pad(tensor, [[0, 0], [top, bottom], [left, right], [0, 0]], name=_safe(label))

    def dense(self, tensor: Any, dense: Dense, label: str) -> Any:
        product = self.tf.matmul(tensor, self.weight(f"{dense.name}/kernel", dense.kernel), name=_safe(label))
        return self.biased(product, dense.name, dense.bias)

    def average(self, tensor: Any, label: str, *, keepdims: bool) -> Any:
        return self.tf.reduce_mean(tensor, (1, 2), keepdims=keepdims, name=_safe(label))

    def normalize(self, tensor: Any, normalization: Normalization, label: str) -> Any:
        scale = normalization.gamma / np.sqrt(normalization.variance + normalization.epsilon)
        shift = normalization.beta - normalization.mean * scale
        scaled = tensor * self.weight(f"{normalization.name}/scale", scale.astype(np.float32))
        return scaled + self.weight(f"{normalization.name}/shift", shift.astype(np.float32))

    def activate(self, tensor: Any, activation: Activation, label: str) -> Any:
        functions: Mapping[Activation, Any] = {
            "relu": self.tf.nn.relu,
            "sigmoid": self.tf.sigmoid,
            "tanh": self.tf.tanh,
            "softmax": self.tf.nn.softmax,
        }
        return functions[activation](tensor, name=_safe(label))

    def combine(self, tensors: Sequence[Any], how: Combination, label: str) -> Any:
        if how == "concatenate":
            return self.tf.concat(tensors, -1, name=_safe(label))
        result = tensors[0]
        for other in tensors[1:]:
            result = result + other if how == "add" else result * other
        return result


def _safe(label: str) -> str:
    """`label` as TensorFlow takes names."""
    return re.sub(r"[^A-Za-z0-9_.\\/>-]|^[^A-Za-z0-9.]", "_", label)
