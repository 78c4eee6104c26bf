"""ONNX, written node by node from the deployed model's own layers.

A generic converter would trace TensorFlow's graph: transpositions around every convolution, grouped convolutions as
calls it cannot express. Here the graph holds what the network is: Conv with symmetric padding, Relu, GlobalAveragePool,
Gemm. Images go in as (N, C, H, W), the order of ONNX's own operators, and so do feature maps that come out; pixels in
uint8 go in as they are decoded, (N, H, W, C).

In float16, weights are stored so and cast to float32 in the graph, which ONNX Runtime does once, when it loads the
file. It has no convolution in float16 for CPUs: a graph that calculates in it is cast back and forth around each node.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.network import image_shape, output_shapes, scale_and_shift, write_model
from repvgg.targets.onnx.run import METADATA_KEY
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

__all__ = ["INPUT", "build", "write"]

OPSET = 17
IR_VERSION = 8
"""What every ONNX Runtime since 1.13 (2022) reads."""

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]

_ACTIVATIONS: Mapping[Activation, str] = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hard_silu": "HardSwish",
}
_POOLS: Mapping[Pool, str] = {"max": "MaxPool", "average": "AveragePool"}
_COMBINATIONS = {"add": "Add", "multiply": "Mul"}


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    onnx = require("onnx", extra="onnx", purpose="Writing an ONNX file")
    proto = build(model, settings)
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def build(model: Any, settings: Settings) -> Any:
    """The model as an ONNX ModelProto, without metadata."""
    return _Writer(require("onnx", extra="onnx", purpose="Writing ONNX"), settings).convert(model)


class _Writer(GraphWriter[str]):
    """Collects nodes and constants; a tensor is its name, and one of four axes is (N, C, H, W)."""

    what: ClassVar[str] = "ONNX"

    def __init__(self, onnx: Any, settings: Settings) -> None:
        super().__init__(settings)
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def convert(self, model: Any) -> Any:
        helper, types = self.onnx.helper, self.onnx.TensorProto
        shape = image_shape(model, self.settings, self.what)
        pixels = self.settings.preprocessing is not None
        outputs = write_model(self, model, self.normalized_pixels() if pixels else INPUT)
        names: dict[str, str] = {}
        for label, name in outputs.items():
            if name == INPUT or name in names:
                name = self.node("Identity", [name], f"{name}:{label}")  # noqa: PLW2901 - a second name for one tensor
            names[name] = label
        for node in self.nodes:
            # The last nodes give the graph's outputs, so these are named in place, not through an Identity.
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        sizes = [(shape[0], *size[1:]) for size in output_shapes(model)]
        body = helper.make_graph(
            self.nodes,
            model.name,
            [self.value(INPUT, shape, types.UINT8 if pixels else types.FLOAT, channels_last=pixels)],
            [self.value(label, size, types.FLOAT) for label, size in zip(outputs, sizes, strict=True)],
            initializer=list(self.constants.values()),
        )
        return helper.make_model(
            body, producer_name="repvgg", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )

    def normalized_pixels(self) -> str:
        scale, shift = scale_and_shift(self.settings.preprocessing, self.settings.precision)
        cast = self.node("Cast", [INPUT], f"{INPUT}:float", to=self.onnx.TensorProto.FLOAT)
        scaled = self.node("Mul", [cast, self.weight(f"{INPUT}/scale", scale)], f"{INPUT}:scaled")
        shifted = self.node("Add", [scaled, self.weight(f"{INPUT}/shift", shift)], f"{INPUT}:normalized")
        return self.node("Transpose", [shifted], f"{INPUT}:channels_first", perm=TO_CHANNELS_FIRST)

    def node(self, operator: str, inputs: Sequence[str], label: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [label], name=label, **attributes))
        return label

    def constant(self, name: str, array: np.ndarray) -> str:
        if name not in self.constants:
            self.constants[name] = self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        """A constant that is stored in the precision that was asked for, as a tensor of float32."""
        if self.settings.precision != FLOAT16:
            return self.constant(name, array)
        label = f"{name}:float32"
        if name not in self.constants:
            self.node("Cast", [self.constant(name, array.astype(np.float16))], label, to=self.onnx.TensorProto.FLOAT)
        return label

    def convolve(self, tensor: str, convolution: Convolution, label: str) -> str:
        kernel = np.transpose(convolution.kernel, (3, 2, 0, 1))
        operands = [tensor, self.weight(f"{convolution.name}/kernel", kernel)]
        if convolution.bias is not None:
            operands.append(self.weight(f"{convolution.name}/bias", convolution.bias))
        return self.node(
            "Conv",
            operands,
            label,
            kernel_shape=list(convolution.kernel.shape[:2]),
            strides=list(convolution.strides),
            dilations=list(convolution.dilations),
            group=convolution.groups,
            **_padding(convolution.pads),
        )

    def convolve_transposed(self, tensor: str, convolution: TransposedConvolution, label: str) -> str:
        kernel = np.transpose(convolution.kernel, (3, 2, 0, 1))
        operands = [tensor, self.weight(f"{convolution.name}/kernel", kernel)]
        if convolution.bias is not None:
            operands.append(self.weight(f"{convolution.name}/bias", convolution.bias))
        return self.node(
            "ConvTranspose",
            operands,
            label,
            kernel_shape=list(convolution.kernel.shape[:2]),
            strides=list(convolution.strides),
            pads=list(convolution.crops),
            output_padding=list(convolution.more),
        )

    def pad(self, tensor: str, pads: Pads, label: str) -> str:
        top, left, bottom, right = pads
        values = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return self.node("Pad", [tensor, self.constant(f"{label}/pads", values)], label)

    def pool(self, tensor: str, pooling: Pooling, label: str) -> str:
        sizes = {"kernel_shape": list(pooling.size), "strides": list(pooling.strides)}
        return self.node(_POOLS[pooling.kind], [tensor], label, **sizes, **_padding(pooling.pads))

    def pool_globally(self, tensor: str, kind: Pool, label: str, *, keepdims: bool) -> str:
        operator = f"Global{_POOLS[kind]}"
        if keepdims:
            return self.node(operator, [tensor], label)
        return self.node("Flatten", [self.node(operator, [tensor], f"{label}/pool")], label)

    def resize(self, tensor: str, resize: Resize, label: str) -> str:
        if resize.size is None:
            factors = np.array([1, 1, *resize.factors], np.float32)
            operands = [tensor, "", self.constant(f"{label}/factors", factors)]
        else:
            # Batch and channels stay; until opset 18 they have to be named with the sizes.
            kept = self.node("Shape", [tensor], f"{label}/kept", start=0, end=2)
            wanted = self.constant(f"{label}/size", np.array(resize.size, np.int64))
            operands = [tensor, "", "", self.node("Concat", [kept, wanted], f"{label}/sizes", axis=0)]
        return self.node(
            "Resize",
            operands,
            label,
            mode="linear" if resize.interpolation == "bilinear" else "nearest",
            coordinate_transformation_mode="half_pixel",
            # Half a pixel off, as in TensorFlow: the pixel whose square holds the centre of the new one.
            nearest_mode="round_prefer_ceil",
        )

    def reshape(self, tensor: str, rank: int, shape: Sequence[int], label: str) -> str:
        if rank == 4:
            tensor = self.node("Transpose", [tensor], f"{label}/channels_last", perm=TO_CHANNELS_LAST)
        images = len(shape) == 3
        sizes = self.constant(f"{label}/shape", np.array([0, *shape], np.int64))
        reshaped = self.node("Reshape", [tensor, sizes], f"{label}/reshaped" if images else label)
        return self.node("Transpose", [reshaped], label, perm=TO_CHANNELS_FIRST) if images else reshaped

    def dense(self, tensor: str, dense: Dense, label: str) -> str:
        operands = [tensor, self.weight(f"{dense.name}/kernel", dense.kernel)]
        if dense.bias is not None:
            operands.append(self.weight(f"{dense.name}/bias", dense.bias))
        return self.node("Gemm", operands, label)

    def normalize(self, tensor: str, normalization: Normalization, label: str) -> str:
        constants = [
            self.weight(f"{normalization.name}/{part}", getattr(normalization, part))
            for part in ("gamma", "beta", "mean", "variance")
        ]
        return self.node("BatchNormalization", [tensor, *constants], label, epsilon=normalization.epsilon)

    def scale(self, tensor: str, rank: int, factor: np.ndarray, addend: np.ndarray, label: str) -> str:
        factor, addend = (
            values.reshape(-1, 1, 1) if rank == 4 and values.ndim else values for values in (factor, addend)
        )
        scaled = self.node("Mul", [tensor, self.constant(f"{label}/factor", factor)], f"{label}/scaled")
        return self.node("Add", [scaled, self.constant(f"{label}/addend", addend)], label)

    def activate(self, tensor: str, rank: int, activation: Activation, label: str) -> str:
        match activation:
            case "softmax":
                return self.node("Softmax", [tensor], label, axis=_channels(rank))
            case "relu6":
                return self.node("Clip", [tensor, self.number("0", 0.0), self.number("6", 6.0)], label)
            case "silu":
                return self.node("Mul", [tensor, self.node("Sigmoid", [tensor], f"{label}/sigmoid")], label)
            case "hard_sigmoid":
                return self.node("HardSigmoid", [tensor], label, alpha=1 / 6, beta=0.5)
            case "gelu":
                # ONNX has an operator for it since opset 20 only. ONNX Runtime makes one of these five.
                ratio = self.node("Div", [tensor, self.number("sqrt2", float(np.sqrt(2)))], f"{label}/ratio")
                error = self.node("Erf", [ratio], f"{label}/erf")
                share = self.node("Add", [error, self.number("1", 1.0)], f"{label}/share")
                twice = self.node("Mul", [tensor, share], f"{label}/twice")
                return self.node("Mul", [twice, self.number("half", 0.5)], label)
            case _:
                return self.node(_ACTIVATIONS[activation], [tensor], label)

    def number(self, name: str, value: float) -> str:
        return self.constant(f"number/{name}", np.array(value, np.float32))

    def combine(self, tensors: Sequence[str], rank: int, how: Combination, label: str) -> str:
        if how == "concatenate":
            return self.node("Concat", tensors, label, axis=_channels(rank))
        result = tensors[0]
        for index, other in enumerate(tensors[1:], start=1):
            last = index == len(tensors) - 1
            result = self.node(_COMBINATIONS[how], [result, other], label if last else f"{label}/{index}")
        return result

    def value(self, name: str, shape: Sequence[int | None], kind: int, *, channels_last: bool = False) -> Any:
        axes = (
            ["batch", "height", "width", "channels"] if len(shape) == 4 else ["batch", *map(str, range(1, len(shape)))]
        )
        sizes = [
            size if size is not None else axis if axis == "batch" else f"{name}_{axis}"
            for size, axis in zip(shape, axes, strict=True)
        ]
        if len(shape) == 4 and not channels_last:
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        return self.onnx.helper.make_tensor_value_info(name, kind, sizes)


def _channels(rank: int) -> int:
    """The axis of the channels."""
    return 1 if rank == 4 else rank - 1


def _padding(pads: Pads | None) -> dict[str, Any]:
    """The attributes of an operator that pads; ONNX knows Keras's "same" by a name of its own."""
    return {"auto_pad": "SAME_UPPER"} if pads is None else {"pads": list(pads)}
