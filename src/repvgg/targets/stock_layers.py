"""Stock Keras layers as primitive operations: said here once, for every format.

The layers that the deploy form consists of, and those that often stand around it. `HANDLERS` is the table; a layer that
is not in it is refused by its name, and so are settings of a layer that no operation expresses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.models.functional_graph import Call
from repvgg.targets.operations import (
    ACTIVATIONS,
    NO_PADS,
    Activation,
    Convolution,
    Dense,
    GraphWriter,
    Interpolation,
    Normalization,
    Pads,
    Pool,
    Pooling,
    Resize,
    TransposedConvolution,
)

Tensor = TypeVar("Tensor")
Writer = GraphWriter[Any]


@dataclass(frozen=True)
class Padded(Generic[Tensor]):
    """A tensor whose padding is still to be done: the convolution behind it takes it along."""

    tensor: Tensor
    pads: Pads


def settled(writer: GraphWriter[Tensor], value: Tensor | Padded[Tensor], label: str) -> Tensor:
    """The tensor, padded."""
    return writer.pad(value.tensor, value.pads, label) if isinstance(value, Padded) else value


def write_layer(
    writer: GraphWriter[Tensor], call: Call, inputs: Sequence[Tensor | Padded[Tensor]], label: str
) -> Tensor | Padded[Tensor]:
    """Writes one call of one layer.

    Raises:
        InputError: if the layer or a setting of it has no counterpart; the message names it.
    """
    layer = call.layer
    if type(layer) is keras.layers.Conv2D:
        return _convolution(writer, call, inputs[0], label)
    tensors = [
        settled(writer, value, f"{label}/pad" + (str(place) if place else "")) for place, value in enumerate(inputs)
    ]
    if type(layer) is keras.layers.ZeroPadding2D:
        _require_channels_last(writer, layer)
        (top, bottom), (left, right) = layer.padding
        return Padded(tensors[0], (top, left, bottom, right))
    handler = HANDLERS.get(type(layer))
    if handler is not None:
        written: Tensor = handler(writer, call, tensors, label)
        return written
    known = (keras.layers.Conv2D, keras.layers.ZeroPadding2D, *HANDLERS)
    raise InputError(
        f"Layer '{layer.name}' ({type(layer).__name__}) has no counterpart in this package's {writer.what} export. "
        f"It writes: {', '.join(kind.__name__ for kind in known)}."
    )


def _convolution(writer: GraphWriter[Tensor], call: Call, value: Tensor | Padded[Tensor], label: str) -> Tensor:
    layer = call.layer
    _require_channels_last(writer, layer)
    same = layer.padding == "same"
    tensor, before = (value.tensor, value.pads) if isinstance(value, Padded) else (value, NO_PADS)
    pads: Pads | None = before
    if same and max(layer.strides) > 1:
        # How much this pads depends on the size, so what was padded before stays an operation of its own.
        tensor = settled(writer, value, f"{label}/pad")
        pads = _same_pads(layer.name, call.input_shapes[0][1:3], layer.kernel_size, layer.strides, layer.dilation_rate)
    elif same:
        around = _same_pads(layer.name, (None, None), layer.kernel_size, layer.strides, layer.dilation_rate) or NO_PADS
        same = before == NO_PADS
        top, left, bottom, right = (pad + more for pad, more in zip(before, around, strict=True))
        pads = (top, left, bottom, right)
    convolution = Convolution(
        name=layer.name,
        kernel=writer.array(layer.kernel),
        bias=writer.array(layer.bias) if layer.use_bias else None,
        strides=tuple(layer.strides),
        dilations=tuple(layer.dilation_rate),
        groups=layer.groups,
        pads=pads,
        same=same,
    )
    return _activated(writer, call, 4, lambda name: writer.convolve(tensor, convolution, name), label, "conv")


def _transposed_convolution(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    _require_channels_last(writer, layer)
    if max(layer.dilation_rate) > 1:
        raise InputError(f"{writer.what} export writes Conv2DTranspose without dilation; '{layer.name}' has one.")
    # Keras's arithmetic does not depend on the size, so any will do that is larger than what is cut off.
    size = max(layer.kernel_size)
    shape = layer.compute_output_shape((1, size, size, call.input_shapes[0][3]))
    before, behind, more = [], [], []
    for kernel, stride, length in zip(layer.kernel_size, layer.strides, shape[1:3], strict=True):
        excess = stride * (size - 1) + kernel - length
        cut = max(excess, 0)
        before.append(cut // 2 if layer.padding == "same" else 0)
        behind.append(cut - before[-1])
        more.append(max(-excess, 0))
    convolution = TransposedConvolution(
        name=layer.name,
        kernel=writer.array(layer.kernel),
        bias=writer.array(layer.bias) if layer.use_bias else None,
        strides=tuple(layer.strides),
        same=layer.padding == "same",
        crops=(before[0], before[1], behind[0], behind[1]),
        more=(more[0], more[1]),
    )
    return _activated(
        writer, call, 4, lambda name: writer.convolve_transposed(tensors[0], convolution, name), label, "conv"
    )


def _pooling(kind: Pool) -> Callable[[Writer, Call, Sequence[Any], str], Any]:
    def handler(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
        layer = call.layer
        _require_channels_last(writer, layer)
        size, strides = tuple(layer.pool_size), tuple(layer.strides)
        same = layer.padding == "same"
        pads = _same_pads(layer.name, call.input_shapes[0][1:3], size, strides, (1, 1)) if same else NO_PADS
        return writer.pool(tensors[0], Pooling(kind, size, strides, pads, same), label)

    return handler


def _global_pooling(kind: Pool) -> Callable[[Writer, Call, Sequence[Any], str], Any]:
    def handler(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
        _require_channels_last(writer, call.layer)
        return writer.pool_globally(tensors[0], kind, label, keepdims=call.layer.keepdims)

    return handler


def _up_sampling(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    _require_channels_last(writer, layer)
    return writer.resize(tensors[0], Resize(_interpolation(writer, layer), factors=tuple(layer.size)), label)


def _resizing(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    _require_channels_last(writer, layer)
    for option in ("crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"):
        if getattr(layer, option):
            raise InputError(f"{writer.what} export writes Resizing without `{option}`; '{layer.name}' has it.")
    return writer.resize(tensors[0], Resize(_interpolation(writer, layer), size=(layer.height, layer.width)), label)


def _interpolation(writer: Writer, layer: Any) -> Interpolation:
    if layer.interpolation == "nearest":
        return "nearest"
    if layer.interpolation == "bilinear":
        return "bilinear"
    raise InputError(
        f"{writer.what} export writes the interpolations nearest and bilinear; '{layer.name}' has "
        f"'{layer.interpolation}'."
    )


def _reshape(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer, (given,) = call.layer, call.input_shapes
    if type(layer) is keras.layers.Flatten:
        _require_channels_last(writer, layer)
    shape = [-1 if size is None else int(size) for size in layer.compute_output_shape(given)[1:]]
    if shape.count(-1) > 1:
        raise InputError(f"'{layer.name}' makes a shape with more than one open size. Fix the images' size.")
    if len(given) == 2 and len(shape) == 1:
        return tensors[0]
    return writer.reshape(tensors[0], len(given), shape, label)


def _dense(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    if len(call.input_shapes[0]) != 2:
        raise InputError(
            f"{writer.what} export writes Dense for vectors (N, C); '{layer.name}' gets {call.input_shapes[0]}."
        )
    dense = Dense(layer.name, writer.array(layer.kernel), writer.array(layer.bias) if layer.use_bias else None)
    return _activated(writer, call, 2, lambda name: writer.dense(tensors[0], dense, name), label, "gemm")


def _batch_normalization(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    _require_last_axis(writer, call, layer.axis, "normalizes")
    if len(call.input_shapes[0]) != 4:
        raise InputError(
            f"{writer.what} export writes BatchNormalization for images; '{layer.name}' gets {call.input_shapes[0]}."
        )
    channels = int(layer.moving_mean.shape[0])
    normalization = Normalization(
        name=layer.name,
        gamma=writer.array(layer.gamma) if layer.scale else np.ones(channels, np.float32),
        beta=writer.array(layer.beta) if layer.center else np.zeros(channels, np.float32),
        mean=writer.array(layer.moving_mean),
        variance=writer.array(layer.moving_variance),
        epsilon=layer.epsilon,
    )
    return writer.normalize(tensors[0], normalization, label)


def _rescaling(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    factor, addend = (np.asarray(value, np.float32) for value in (layer.scale, layer.offset))
    return _scaled(writer, call, tensors[0], factor, addend, label)


def _feature_normalization(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    mean, variance = (
        np.squeeze(np.asarray(keras.ops.convert_to_numpy(value), np.float64)) for value in (layer.mean, layer.variance)
    )
    if layer.axis:
        axis = layer.axis[0] if len(layer.axis) == 1 else tuple(layer.axis)
        _require_last_axis(writer, call, axis, "normalizes")
    std = np.maximum(np.sqrt(variance), keras.config.epsilon())
    factor, addend = (std, mean) if layer.invert else (1 / std, -mean / std)
    return _scaled(writer, call, tensors[0], factor, addend, label)


def _scaled(writer: Writer, call: Call, tensor: Any, factor: np.ndarray, addend: np.ndarray, label: str) -> Any:
    channels = call.input_shapes[0][-1]
    for values in (factor, addend):
        if values.shape not in ((), (1,), (channels,)):
            raise InputError(
                f"{writer.what} export scales by one number, or one for each channel; '{call.layer.name}' has an "
                f"array of shape {values.shape}."
            )
    factor, addend = (np.reshape(values, -1 if values.size > 1 else ()) for values in (factor, addend))
    return writer.scale(tensor, len(call.input_shapes[0]), factor.astype(np.float32), addend.astype(np.float32), label)


def _activation(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    return _activated(writer, call, len(call.input_shapes[0]), lambda _: tensors[0], label, "")


def _relu(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    layer = call.layer
    if layer.max_value not in (None, 6) or layer.negative_slope or layer.threshold:
        raise InputError(f"{writer.what} export writes ReLU plain or cut off at 6; '{layer.name}' has other settings.")
    return writer.activate(
        tensors[0], len(call.input_shapes[0]), "relu6" if layer.max_value is not None else "relu", label
    )


def _softmax(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    _require_last_axis(writer, call, call.layer.axis, "is a softmax over")
    return writer.activate(tensors[0], len(call.input_shapes[0]), "softmax", label)


def _concatenate(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    _require_last_axis(writer, call, call.layer.axis, "concatenates")
    return writer.combine(tensors, len(call.input_shapes[0]), "concatenate", label)


def _add(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    return writer.combine(tensors, _common_rank(call), "add", label)


def _multiply(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    return writer.combine(tensors, _common_rank(call), "multiply", label)


def _pass_on(writer: Writer, call: Call, tensors: Sequence[Any], label: str) -> Any:
    return tensors[0]


HANDLERS: Mapping[type, Callable[[Writer, Call, Sequence[Any], str], Any]] = {
    keras.layers.Conv2DTranspose: _transposed_convolution,
    keras.layers.Dense: _dense,
    keras.layers.MaxPooling2D: _pooling("max"),
    keras.layers.AveragePooling2D: _pooling("average"),
    keras.layers.GlobalMaxPooling2D: _global_pooling("max"),
    keras.layers.GlobalAveragePooling2D: _global_pooling("average"),
    keras.layers.UpSampling2D: _up_sampling,
    keras.layers.Resizing: _resizing,
    keras.layers.Flatten: _reshape,
    keras.layers.Reshape: _reshape,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Normalization: _feature_normalization,
    keras.layers.Rescaling: _rescaling,
    keras.layers.Activation: _activation,
    keras.layers.ReLU: _relu,
    keras.layers.Softmax: _softmax,
    keras.layers.Multiply: _multiply,
    keras.layers.Add: _add,
    keras.layers.Concatenate: _concatenate,
    keras.layers.Dropout: _pass_on,
    keras.layers.SpatialDropout2D: _pass_on,
    keras.layers.Identity: _pass_on,
}


def _activated(
    writer: GraphWriter[Tensor], call: Call, rank: int, write: Callable[[str], Tensor], label: str, inner: str
) -> Tensor:
    """What `write` writes, called `label/inner`, and the layer's activation behind it; without one it is `label`."""
    active = activation_of(writer, call.layer)
    if active is None:
        return write(label)
    return writer.activate(write(f"{label}/{inner}"), rank, active, label)


def activation_of(writer: Writer, layer: Any) -> Activation | None:
    """The activation of a layer that has one; None if it is linear.

    Raises:
        InputError: if no format writes it.
    """
    name = keras.activations.serialize(layer.activation)
    if name == "linear":
        return None
    for activation in ACTIVATIONS:
        if name == activation:
            return activation
    raise InputError(
        f"'{layer.name}' uses the activation {name!r}, which {writer.what} export does not write. "
        f"It writes: {', '.join(ACTIVATIONS)}."
    )


def _require_channels_last(writer: Writer, layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise InputError(f"{writer.what} export reads channels_last models; '{layer.name}' is {layer.data_format}.")


def _require_last_axis(writer: Writer, call: Call, axis: Any, does: str) -> None:
    if axis not in (-1, len(call.input_shapes[0]) - 1):
        raise InputError(
            f"{writer.what} export reads channels_last models; '{call.layer.name}' {does} axis {axis}, and the "
            "channels are the last one."
        )


def _common_rank(call: Call) -> int:
    ranks = {len(shape) for shape in call.input_shapes}
    if len(ranks) > 1:
        raise InputError(
            f"'{call.layer.name}' joins tensors of different numbers of axes: "
            f"{', '.join(str(shape) for shape in call.input_shapes)}. Reshape them first."
        )
    return ranks.pop()


def _same_pads(
    name: str, sizes: Sequence[int | None], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> Pads | None:
    """Keras's "same", which is TensorFlow's; None where it depends on sizes that are open."""
    before, behind = [], []
    for size, length, stride, rate in zip(sizes, kernel, strides, dilations, strict=True):
        reach = rate * (length - 1)
        total = reach
        if stride > 1:
            if size is None:
                if reach + 1 < stride:
                    raise InputError(
                        f"'{name}' pads by 'same' and skips pixels, which runtimes do in different ways where the size "
                        "is open. Fix the images' size in the model, or use ZeroPadding2D and padding='valid'."
                    )
                return None
            total = max((-(-size // stride) - 1) * stride + reach + 1 - size, 0)
        before.append(total // 2)
        behind.append(total - total // 2)
    return before[0], before[1], behind[0], behind[1]
