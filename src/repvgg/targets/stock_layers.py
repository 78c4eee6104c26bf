"""A functional model of stock layers as a sequence of primitive operations, for writers of other formats.

Each Keras layer that the deploy form consists of, or that often stands around it, is said here once in terms of
`GraphWriter`'s operations; what they are in a format is the format's own file.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.models.functional_graph import Call, FunctionalGraph, TensorKey
from repvgg.targets import Settings

INPUT, LOGITS, PROBABILITIES = "images", "logits", "probabilities"

Tensor = TypeVar("Tensor")
Activation = Literal["relu", "sigmoid", "tanh", "softmax"]
Combination = Literal["add", "multiply", "concatenate"]
Pads = tuple[int, int, int, int]
"""Zeros (top, left, bottom, right)."""

ACTIVATIONS: tuple[Activation, ...] = ("relu", "sigmoid", "tanh", "softmax")
NO_PADS: Pads = (0, 0, 0, 0)
FLOAT16 = "float16"
FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Convolution:
    """What a convolution is, in every format: kernel (height, width, in / groups, out), bias (out,)."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None
    strides: tuple[int, int]
    dilations: tuple[int, int]
    groups: int
    pads: Pads

    @property
    def keeps_size(self) -> bool:
        """Whether the padding is exactly what gives an output as large as the input, the same on both sides."""
        height, width = (rate * (size - 1) for rate, size in zip(self.dilations, self.kernel.shape[:2], strict=True))
        return self.strides == (1, 1) and self.pads == (
            height // 2,
            width // 2,
            height - height // 2,
            width - width // 2,
        )


@dataclass(frozen=True)
class Dense:
    """A matrix product: kernel (in, out), bias (out,)."""

    name: str
    kernel: np.ndarray
    bias: np.ndarray | None


@dataclass(frozen=True)
class Normalization:
    """Batch normalization with fixed statistics, each (channels,)."""

    name: str
    gamma: np.ndarray
    beta: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class _Padded(Generic[Tensor]):
    """A tensor whose padding is still to be done: the convolution behind it takes it along."""

    tensor: Tensor
    pads: Pads


class GraphWriter(ABC, Generic[Tensor]):
    """Writes a model; subclasses know how one operation is written.

    `Tensor` is whatever stands for a tensor in the format. Labels are unique in a model and derived from the layers'
    names.
    """

    what: ClassVar[str]
    """The format's name, for messages."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def convolve(self, tensor: Tensor, convolution: Convolution, label: str) -> Tensor:
        """Convolution and bias."""

    @abstractmethod
    def pad(self, tensor: Tensor, pads: Pads, label: str) -> Tensor:
        """Zeros around images."""

    @abstractmethod
    def dense(self, tensor: Tensor, dense: Dense, label: str) -> Tensor:
        """Matrix product and bias of vectors (N, C)."""

    @abstractmethod
    def average(self, tensor: Tensor, label: str, *, keepdims: bool) -> Tensor:
        """Each channel's mean over the image: (N, C), or images of one pixel with `keepdims`."""

    @abstractmethod
    def normalize(self, tensor: Tensor, normalization: Normalization, label: str) -> Tensor:
        """Batch normalization."""

    @abstractmethod
    def activate(self, tensor: Tensor, activation: Activation, label: str) -> Tensor:
        """An activation; softmax is over the channels of vectors."""

    @abstractmethod
    def combine(self, tensors: Sequence[Tensor], how: Combination, label: str) -> Tensor:
        """Sum or product with broadcasting, or channels one after the other."""

    def array(self, variable: Any) -> np.ndarray:
        """A weight of the model as an array of float32; for float16 it is rounded here, the same for every format."""
        values = np.asarray(keras.ops.convert_to_numpy(variable.value), dtype=np.float32)
        if self.settings.precision != FLOAT16:
            return values
        if not np.abs(values).max(initial=0) <= FLOAT16_MAX:
            raise InputError(
                f"The weight '{variable.path}' has values above {FLOAT16_MAX:.0f}, which float16 cannot hold. "
                "Export in float32."
            )
        return in_float16(values)

    def write_model(self, model: Any, images: Tensor) -> dict[str, Tensor]:
        """Writes the whole model; its outputs by name: 'logits' or 'probabilities' where there is one.

        Raises:
            InputError: if a layer has no counterpart, or softmax is asked for where it makes no sense.
        """
        graph = FunctionalGraph(model)
        outputs = self._graph(graph, [images], prefix="")
        if not self.settings.softmax:
            return outputs if len(outputs) > 1 else {LOGITS: next(iter(outputs.values()))}
        if len(outputs) > 1 or len(model.outputs[0].shape) != 2:
            raise InputError(f"Softmax makes probabilities of a classifier's logits, and '{model.name}' is none.")
        last = next(call.layer for call in graph.calls if call.output in graph.outputs.values())
        if keras.activations.serialize(getattr(last, "activation", None) or keras.activations.linear) == "softmax":
            raise InputError(f"'{model.name}' ends in a softmax, so it gives probabilities already. Leave softmax out.")
        (logits,) = outputs.values()
        return {PROBABILITIES: self.activate(logits, "softmax", f"{PROBABILITIES}:softmax")}

    def _graph(self, graph: FunctionalGraph, inputs: Sequence[Tensor], prefix: str) -> dict[str, Tensor]:
        values: dict[TensorKey, Tensor | _Padded[Tensor]] = dict(zip(graph.inputs, inputs, strict=True))
        for call in graph.calls:
            label = prefix + call.output[0] + (f":{call.output[1]}" if call.output[1] else "")
            values[call.output] = self._call(call, [values[key] for key in call.inputs], label)
        return {name: self._settled(values[key], f"{prefix}{key[0]}") for name, key in graph.outputs.items()}

    def _call(self, call: Call, inputs: Sequence["Tensor | _Padded[Tensor]"], label: str) -> "Tensor | _Padded[Tensor]":
        layer = call.layer
        first = inputs[0]
        if type(layer) is keras.layers.Conv2D:
            return self._convolution(layer, first, label)
        tensors = [
            self._settled(value, f"{label}/pad" + (str(place) if place else "")) for place, value in enumerate(inputs)
        ]
        if type(layer) is keras.layers.ZeroPadding2D:
            self._require_channels_last(layer)
            (top, bottom), (left, right) = layer.padding
            return _Padded(tensors[0], (top, left, bottom, right))
        if isinstance(layer, keras.Model):
            (result,) = self._graph(FunctionalGraph(layer), tensors, prefix=f"{label}/").values()
            return result
        for kind, handler in _HANDLERS.items():
            if type(layer) is kind:
                written: Tensor = handler(self, call, tensors, label)
                return written
        known = (keras.layers.Conv2D, keras.layers.ZeroPadding2D, *_HANDLERS)
        raise InputError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has no counterpart in this package's {self.what} export. "
            f"It writes: {', '.join(kind.__name__ for kind in known)}."
        )

    def _settled(self, value: "Tensor | _Padded[Tensor]", label: str) -> Tensor:
        return self.pad(value.tensor, value.pads, label) if isinstance(value, _Padded) else value

    def _convolution(self, layer: Any, value: "Tensor | _Padded[Tensor]", label: str) -> Tensor:
        self._require_channels_last(layer)
        pads = value.pads if isinstance(value, _Padded) else NO_PADS
        if layer.padding == "same":
            if max(layer.strides) > 1:
                raise InputError(
                    f"'{layer.name}' has padding='same' with stride {layer.strides}, which pads by the image's size. "
                    "Use ZeroPadding2D and padding='valid'."
                )
            height, width = (
                rate * (size - 1) for rate, size in zip(layer.dilation_rate, layer.kernel_size, strict=True)
            )
            same = (height // 2, width // 2, height - height // 2, width - width // 2)
            top, left, bottom, right = (pad + more for pad, more in zip(pads, same, strict=True))
            pads = (top, left, bottom, right)
        convolution = Convolution(
            name=layer.name,
            kernel=self.array(layer.kernel),
            bias=self.array(layer.bias) if layer.use_bias else None,
            strides=tuple(layer.strides),
            dilations=tuple(layer.dilation_rate),
            groups=layer.groups,
            pads=pads,
        )
        tensor = value.tensor if isinstance(value, _Padded) else value
        active = self._active(layer)
        convolved = self.convolve(tensor, convolution, f"{label}/conv" if active else label)
        return self.activate(convolved, active, label) if active else convolved

    def _active(self, layer: Any) -> Activation | None:
        name = keras.activations.serialize(layer.activation)
        if name == "linear":
            return None
        for activation in ACTIVATIONS:
            if name == activation:
                return activation
        raise InputError(f"'{layer.name}' uses the activation {name!r}, which {self.what} export does not write.")

    def _require_channels_last(self, layer: Any) -> None:
        if layer.data_format != "channels_last":
            raise InputError(f"{self.what} export reads channels_last models; '{layer.name}' is {layer.data_format}.")

    def _dense(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        layer = call.layer
        if len(call.input_shapes[0]) != 2:
            raise InputError(
                f"{self.what} export writes Dense for vectors (N, C); '{layer.name}' gets {call.input_shapes[0]}."
            )
        dense = Dense(layer.name, self.array(layer.kernel), self.array(layer.bias) if layer.use_bias else None)
        active = self._active(layer)
        product = self.dense(tensors[0], dense, f"{label}/gemm" if active else label)
        return self.activate(product, active, label) if active else product

    def _global_average(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        self._require_channels_last(call.layer)
        return self.average(tensors[0], label, keepdims=call.layer.keepdims)

    def _batch_normalization(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        layer = call.layer
        if layer.axis not in (-1, len(call.input_shapes[0]) - 1):
            raise InputError(
                f"{self.what} export reads channels_last models; '{layer.name}' normalizes axis {layer.axis}."
            )
        channels = int(layer.moving_mean.shape[0])
        normalization = Normalization(
            name=layer.name,
            gamma=self.array(layer.gamma) if layer.scale else np.ones(channels, np.float32),
            beta=self.array(layer.beta) if layer.center else np.zeros(channels, np.float32),
            mean=self.array(layer.moving_mean),
            variance=self.array(layer.moving_variance),
            epsilon=layer.epsilon,
        )
        return self.normalize(tensors[0], normalization, label)

    def _activation(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        active = self._active(call.layer)
        if active == "softmax" and len(call.input_shapes[0]) != 2:
            raise InputError(
                f"{self.what} export writes softmax for vectors (N, C); '{call.layer.name}' gets more axes."
            )
        return self.activate(tensors[0], active, label) if active else tensors[0]

    def _relu(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        layer = call.layer
        if layer.max_value is not None or layer.negative_slope or layer.threshold:
            raise InputError(f"{self.what} export writes the plain ReLU; '{layer.name}' has other settings.")
        return self.activate(tensors[0], "relu", label)

    def _concatenate(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        if call.layer.axis not in (-1, len(call.input_shapes[0]) - 1):
            raise InputError(
                f"{self.what} export concatenates channels; '{call.layer.name}' has axis {call.layer.axis}."
            )
        return self.combine(tensors, "concatenate", label)

    def _add(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        return self.combine(tensors, "add", label)

    def _multiply(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        return self.combine(tensors, "multiply", label)

    def _pass_on(self, call: Call, tensors: Sequence[Tensor], label: str) -> Tensor:
        return tensors[0]


_HANDLERS: Mapping[type, Callable[[GraphWriter[Any], Call, Sequence[Any], str], Any]] = {
    keras.layers.Dense: GraphWriter._dense,
    keras.layers.GlobalAveragePooling2D: GraphWriter._global_average,
    keras.layers.BatchNormalization: GraphWriter._batch_normalization,
    keras.layers.Activation: GraphWriter._activation,
    keras.layers.ReLU: GraphWriter._relu,
    keras.layers.Multiply: GraphWriter._multiply,
    keras.layers.Add: GraphWriter._add,
    keras.layers.Concatenate: GraphWriter._concatenate,
    keras.layers.Dropout: GraphWriter._pass_on,
}


def image_shape(model: Any, settings: Settings, what: str) -> tuple[int | None, int | None, int | None, int]:
    """(batch, height, width, channels) of the artifact's input: the model's, where the settings fix nothing.

    Raises:
        InputError: if the model takes something else than one batch of images, or other images than the settings say.
    """
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise InputError(f"{what} export takes models with one input of images; '{model.name}' has {shapes}.")
    own = tuple(model.inputs[0].shape)
    asked = (settings.batch, *(settings.image_size or (None, None)))
    fixed = []
    for side, size, wanted in zip(("batch", "height", "width"), own, asked, strict=False):
        if wanted is not None and wanted < 1:
            raise InputError(f"The {side} of the artifact's input must be at least 1. Received: {wanted}.")
        if size is not None and wanted is not None and size != wanted:
            raise InputError(
                f"The {side} of '{model.name}' is fixed to {size}, and {wanted} was asked for. Load or build the model "
                "with open sides first: input_shape=(None, None, 3)."
            )
        fixed.append(size if size is not None else wanted)
    preprocessing = settings.preprocessing
    if preprocessing is not None and preprocessing.channels != own[3]:
        raise InputError(
            f"'{model.name}' takes images of {own[3]} channels, and its preprocessing is for {preprocessing.channels}."
        )
    return fixed[0], fixed[1], fixed[2], int(own[3])


def scale_and_shift(preprocessing: Preprocessing | None, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels times the first, plus the second, are normalized images; each (channels,), rounded to the precision."""
    if preprocessing is None:
        raise InputError("There is no preprocessing to write into the artifact.")
    mean, std = (np.asarray(part, np.float64) for part in (preprocessing.mean, preprocessing.std))
    scale, shift = (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    return (in_float16(scale), in_float16(shift)) if precision == FLOAT16 else (scale, shift)


def in_float16(values: np.ndarray) -> np.ndarray:
    """The values that float16 can hold next to these, in their own type."""
    return values.astype(np.float16).astype(values.dtype)
