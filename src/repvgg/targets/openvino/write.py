"""OpenVINO's own format (IR): the graph in an `.xml` file, the weights in a `.bin` beside it.

Written operation by operation, as the ONNX graph is, and in the same order of axes, (N, C, H, W). OpenVINO's own way
from ONNX leaves a multiplication by 1 behind the classifier, or asks for telemetry.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.network import image_shape, scale_and_shift, write_model
from repvgg.targets.openvino.run import METADATA_PATH
from repvgg.targets.operations import (
    FLOAT16,
    INPUT,
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

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)

_ACTIVATIONS: Mapping[Activation, str] = {
    "relu": "relu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "swish",
    "hard_sigmoid": "hsigmoid",
    "hard_silu": "hswish",
}


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers as `path` and its `.bin`.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    openvino = require("openvino", extra="openvino", purpose="Writing an OpenVINO model")
    network = build(model, settings)
    network.set_rt_info(metadata.to_json(), METADATA_PATH)
    openvino.save_model(network, path, compress_to_fp16=settings.precision == FLOAT16)


def build(model: Any, settings: Settings) -> Any:
    """The model as an `openvino.Model` with weights in float32, without metadata."""
    return _Writer(require("openvino", extra="openvino", purpose="Writing an OpenVINO model"), settings).convert(model)


class _Writer(GraphWriter[Any]):
    """A tensor is a node with one output; one of four axes is (N, C, H, W)."""

    what: ClassVar[str] = "OpenVINO"

    def __init__(self, openvino: Any, settings: Settings) -> None:
        super().__init__(settings)
        self.openvino = openvino
        self.operations = openvino.opset13
        self.weights: dict[str, Any] = {}

    def convert(self, model: Any) -> Any:
        batch, height, width, channels = (
            -1 if size is None else size for size in image_shape(model, self.settings, self.what)
        )
        pixels = self.settings.preprocessing is not None
        shape = [batch, height, width, channels] if pixels else [batch, channels, height, width]
        images = self.operations.parameter(shape, np.uint8 if pixels else np.float32, name=INPUT)
        images.output(0).set_names({INPUT})
        outputs = write_model(self, model, self.normalized_pixels(images) if pixels else images)
        results = []
        for label, node in outputs.items():
            # A tensor has a set of names, and may be the output twice.
            node.output(0).set_names({*node.output(0).get_names(), label})
            results.append(self.operations.result(node, name=f"{label}/result"))
        return self.openvino.Model(results, [images], model.name)

    def normalized_pixels(self, images: Any) -> Any:
        scale, shift = scale_and_shift(self.settings.preprocessing, self.settings.precision)
        floats = self.operations.convert(images, "f32")
        scaled = self.operations.multiply(floats, self.constant(scale), name=f"{INPUT}:scaled")
        shifted = self.operations.add(scaled, self.constant(shift), name=f"{INPUT}:normalized")
        return self.moved(shifted, TO_CHANNELS_FIRST)

    def constant(self, array: np.ndarray) -> Any:
        return self.operations.constant(np.ascontiguousarray(array))

    def weight(self, name: str, array: np.ndarray) -> Any:
        """A constant that is there once, however often its layer is called."""
        if name not in self.weights:
            self.weights[name] = self.operations.constant(np.ascontiguousarray(array), name=name)
        return self.weights[name]

    def moved(self, tensor: Any, axes: Sequence[int], **name: str) -> Any:
        return self.operations.transpose(tensor, self.constant(np.array(axes, np.int64)), **name)

    def convolve(self, tensor: Any, convolution: Convolution, label: str) -> Any:
        groups = convolution.groups
        kernel = np.transpose(convolution.kernel, (3, 2, 0, 1))
        operation = self.operations.convolution
        if groups > 1:
            kernel = kernel.reshape(groups, kernel.shape[0] // groups, *kernel.shape[1:])
            operation = self.operations.group_convolution
        biased = convolution.bias is not None
        result = operation(
            tensor,
            self.weight(f"{convolution.name}/kernel", kernel),
            list(convolution.strides),
            *_padding(convolution.pads),
            list(convolution.dilations),
            _auto_pad(convolution.pads),
            name=f"{label}/product" if biased else label,
        )
        return self.biased(result, convolution.name, convolution.bias, label, (1, -1, 1, 1))

    def convolve_transposed(self, tensor: Any, convolution: TransposedConvolution, label: str) -> Any:
        biased = convolution.bias is not None
        result = self.operations.convolution_backprop_data(
            tensor,
            self.weight(f"{convolution.name}/kernel", np.transpose(convolution.kernel, (3, 2, 0, 1))),
            list(convolution.strides),
            pads_begin=list(convolution.crops[:2]),
            pads_end=list(convolution.crops[2:]),
            dilations=[1, 1],
            output_padding=list(convolution.more),
            name=f"{label}/product" if biased else label,
        )
        return self.biased(result, convolution.name, convolution.bias, label, (1, -1, 1, 1))

    def biased(self, tensor: Any, name: str, bias: np.ndarray | None, label: str, shape: tuple[int, ...]) -> Any:
        if bias is None:
            return tensor
        return self.operations.add(tensor, self.weight(f"{name}/bias", bias.reshape(shape)), name=label)

    def pad(self, tensor: Any, pads: Pads, label: str) -> Any:
        top, left, bottom, right = pads
        before, after = (np.array([0, 0, *sides], np.int64) for sides in ((top, left), (bottom, right)))
        return self.operations.pad(tensor, self.constant(before), self.constant(after), "constant", name=label)

    def dense(self, tensor: Any, dense: Dense, label: str) -> Any:
        biased = dense.bias is not None
        kernel = self.weight(f"{dense.name}/kernel", dense.kernel)
        product = self.operations.matmul(tensor, kernel, False, False, name=f"{label}/product" if biased else label)
        return self.biased(product, dense.name, dense.bias, label, (1, -1))

    def pool(self, tensor: Any, pooling: Pooling, label: str) -> Any:
        size, strides, pads = list(pooling.size), list(pooling.strides), _padding(pooling.pads)
        auto_pad = _auto_pad(pooling.pads)
        if pooling.kind == "max":
            # Later versions also give the places of the maxima.
            return self.openvino.opset1.max_pool(tensor, strides, *pads, size, "floor", auto_pad, name=label)
        return self.operations.avg_pool(tensor, strides, *pads, size, True, "floor", auto_pad, name=label)

    def pool_globally(self, tensor: Any, kind: Pool, label: str, *, keepdims: bool) -> Any:
        reduce = self.operations.reduce_max if kind == "max" else self.operations.reduce_mean
        return reduce(tensor, self.constant(np.array([2, 3], np.int64)), keepdims, name=label)

    def resize(self, tensor: Any, resize: Resize, label: str) -> Any:
        by_size = resize.size is not None
        wanted = np.array(resize.size, np.int64) if by_size else np.array(resize.factors, np.float32)
        return self.operations.interpolate(
            tensor,
            self.constant(wanted),
            "linear_onnx" if resize.interpolation == "bilinear" else "nearest",
            "sizes" if by_size else "scales",
            [0, 0, 0, 0],
            [0, 0, 0, 0],
            "half_pixel",
            # Half a pixel off, as in TensorFlow: the pixel whose square holds the centre of the new one.
            "round_prefer_ceil",
            axes=self.constant(np.array([2, 3], np.int64)),
            name=label,
        )

    def reshape(self, tensor: Any, rank: int, shape: Sequence[int], label: str) -> Any:
        if rank == 4:
            tensor = self.moved(tensor, TO_CHANNELS_LAST)
        sizes = self.constant(np.array([0, *shape], np.int64))
        if len(shape) == 3:
            return self.moved(self.operations.reshape(tensor, sizes, True), TO_CHANNELS_FIRST, name=label)
        return self.operations.reshape(tensor, sizes, True, name=label)

    def normalize(self, tensor: Any, normalization: Normalization, label: str) -> Any:
        statistics = [
            self.weight(f"{normalization.name}/{part}", getattr(normalization, part))
            for part in ("gamma", "beta", "mean", "variance")
        ]
        return self.operations.batch_norm_inference(tensor, *statistics, normalization.epsilon, name=label)

    def scale(self, tensor: Any, rank: int, factor: np.ndarray, addend: np.ndarray, label: str) -> Any:
        factor, addend = (
            values.reshape(-1, 1, 1) if rank == 4 and values.ndim else values for values in (factor, addend)
        )
        scaled = self.operations.multiply(tensor, self.constant(factor), name=f"{label}/scaled")
        return self.operations.add(scaled, self.constant(addend), name=label)

    def activate(self, tensor: Any, rank: int, activation: Activation, label: str) -> Any:
        match activation:
            case "softmax":
                return self.operations.softmax(tensor, _channels(rank), name=label)
            case "relu6":
                return self.operations.clamp(tensor, 0.0, 6.0, name=label)
            case "gelu":
                return self.operations.gelu(tensor, "erf", name=label)
            case _:
                return getattr(self.operations, _ACTIVATIONS[activation])(tensor, name=label)

    def combine(self, tensors: Sequence[Any], rank: int, how: Combination, label: str) -> Any:
        if how == "concatenate":
            return self.operations.concat(list(tensors), _channels(rank), name=label)
        result = tensors[0]
        for index, other in enumerate(tensors[1:], start=1):
            last = index == len(tensors) - 1
            operation = self.operations.add if how == "add" else self.operations.multiply
            result = operation(result, other, name=label if last else f"{label}/{index}")
        return result


def _channels(rank: int) -> int:
    """The axis of the channels."""
    return 1 if rank == 4 else rank - 1


def _padding(pads: Pads | None) -> tuple[list[int], list[int]]:
    """Zeros before and behind; none of our own where OpenVINO counts them."""
    return ([0, 0], [0, 0]) if pads is None else (list(pads[:2]), list(pads[2:]))


def _auto_pad(pads: Pads | None) -> str:
    """What OpenVINO calls Keras's "same", where that depends on sizes that are open."""
    return "same_upper" if pads is None else "explicit"
