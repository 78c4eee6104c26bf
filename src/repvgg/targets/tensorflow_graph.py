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
from repvgg.targets.network import image_shape, scale_and_shift, write_model
from repvgg.targets.operations import (
    INPUT,
    NO_PADS,
    Activation,
    Combination,
    Convolution,
    Dense,
    GraphWriter,
    Normalization,
    Pads,
    Pool,
    Pooling,
    Resize,
    TransposedConvolution,
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
        lambda images: write_model(writer, model, writer.prepared(images)),
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
        if convolution.same or convolution.pads is None:
            padding: Any = "SAME"
        elif convolution.pads == NO_PADS:
            padding = "VALID"
        else:
            top, left, bottom, right = convolution.pads
            padding = [[0, 0], [top, bottom], [left, right], [0, 0]]
        convolved = self.tf.nn.conv2d(
            tensor,
            self.weight(f"{convolution.name}/kernel", convolution.kernel),
            convolution.strides,
            padding,
            dilations=convolution.dilations,
            name=_safe(label),
        )
        if convolution.bias is not None and convolution.groups > 1:
            # TensorFlow fuses a convolution with the `BiasAdd` behind it, and its own kernel for the two refuses
            # groups: without oneDNN, no reader could run the file.
            return convolved + self.weight(f"{convolution.name}/bias", convolution.bias)
        return self.biased(convolved, convolution.name, convolution.bias)

    def convolve_transposed(self, tensor: Any, convolution: TransposedConvolution, label: str) -> Any:
        batch, height, width = self.sizes(tensor)
        (rise, widening), (down, right) = convolution.growth, convolution.strides
        convolved = self.tf.nn.conv2d_transpose(
            tensor,
            self.weight(f"{convolution.name}/kernel", convolution.kernel),
            [batch, down * height + rise, right * width + widening, convolution.kernel.shape[2]],
            convolution.strides,
            "SAME" if convolution.same else "VALID",
            name=_safe(label),
        )
        return self.biased(convolved, convolution.name, convolution.bias)

    def sizes(self, tensor: Any) -> tuple[Any, Any, Any]:
        """Batch, height and width of images: numbers where they are fixed, else tensors."""
        dynamic = self.tf.shape(tensor)
        batch, height, width = (dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape[:3]))
        return batch, height, width

    def pad(self, tensor: Any, pads: Pads, label: str) -> Any:
        top, left, bottom, right = pads
        return self.tf.pad(tensor, [[0, 0], [top, bottom], [left, right], [0, 0]], name=_safe(label))

    def dense(self, tensor: Any, dense: Dense, label: str) -> Any:
        product = self.tf.matmul(tensor, self.weight(f"{dense.name}/kernel", dense.kernel), name=_safe(label))
        return self.biased(product, dense.name, dense.bias)

    def pool(self, tensor: Any, pooling: Pooling, label: str) -> Any:
        function = self.tf.nn.max_pool2d if pooling.kind == "max" else self.tf.nn.avg_pool2d
        return function(tensor, pooling.size, pooling.strides, "SAME" if pooling.same else "VALID", name=_safe(label))

    def pool_globally(self, tensor: Any, kind: Pool, label: str, *, keepdims: bool) -> Any:
        reduce = self.tf.reduce_max if kind == "max" else self.tf.reduce_mean
        return reduce(tensor, (1, 2), keepdims=keepdims, name=_safe(label))

    def resize(self, tensor: Any, resize: Resize, label: str) -> Any:
        if resize.size is None:
            _, height, width = self.sizes(tensor)
            size: Any = [resize.factors[0] * height, resize.factors[1] * width]
        else:
            size = list(resize.size)
        return self.tf.image.resize(tensor, size, resize.interpolation, name=_safe(label))

    def reshape(self, tensor: Any, rank: int, shape: Sequence[int], label: str) -> Any:
        batch = tensor.shape[0]
        if -1 not in shape:
            batch = -1
        elif batch is None:
            batch = self.tf.shape(tensor)[0]
        return self.tf.reshape(tensor, [batch, *shape], name=_safe(label))

    def normalize(self, tensor: Any, normalization: Normalization, label: str) -> Any:
        scale = normalization.gamma / np.sqrt(normalization.variance + normalization.epsilon)
        shift = normalization.beta - normalization.mean * scale
        scaled = tensor * self.weight(f"{normalization.name}/scale", scale.astype(np.float32))
        return scaled + self.weight(f"{normalization.name}/shift", shift.astype(np.float32))

    def scale(self, tensor: Any, rank: int, factor: np.ndarray, addend: np.ndarray, label: str) -> Any:
        return self.tf.add(tensor * factor, addend, name=_safe(label))

    def activate(self, tensor: Any, rank: int, activation: Activation, label: str) -> Any:
        name = _safe(label)
        match activation:
            case "silu":
                # `tf.nn.silu` brings a gradient of its own, which nobody asks an artifact for.
                return self.tf.multiply(tensor, self.tf.sigmoid(tensor), name=name)
            case "gelu":
                return self.tf.nn.gelu(tensor, name=name)
            case "hard_sigmoid":
                return self.tf.multiply(self.tf.nn.relu6(tensor + 3.0), 1 / 6, name=name)
            case "hard_silu":
                return self.tf.multiply(tensor * self.tf.nn.relu6(tensor + 3.0), 1 / 6, name=name)
        functions: Mapping[Activation, Any] = {
            "relu": self.tf.nn.relu,
            "relu6": self.tf.nn.relu6,
            "sigmoid": self.tf.sigmoid,
            "tanh": self.tf.tanh,
            "softmax": self.tf.nn.softmax,
        }
        return functions[activation](tensor, name=name)

    def combine(self, tensors: Sequence[Any], rank: int, how: Combination, label: str) -> Any:
        if how == "concatenate":
            return self.tf.concat(tensors, -1, name=_safe(label))
        result = tensors[0]
        for other in tensors[1:]:
            result = result + other if how == "add" else result * other
        return result


def _safe(label: str) -> str:
    """`label` as TensorFlow takes names."""
    return re.sub(r"[^A-Za-z0-9_.\\/>-]|^[^A-Za-z0-9.]", "_", label)
