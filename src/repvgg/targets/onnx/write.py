"""ONNX, written node by node from the deployed model's own layers.

A generic converter would trace TensorFlow's graph: transpositions around every convolution, grouped convolutions as
calls it cannot express. Here the graph holds what the network is: Conv with symmetric padding, Relu, GlobalAveragePool,
Gemm. Images go in as (N, C, H, W), the order of ONNX's own operators, and so do feature maps that come out; pixels in
uint8 go in as they are decoded, (N, H, W, C).

In float16, weights are stored so and cast to float32 in the graph, which ONNX Runtime does once, when it loads the
file. It has no convolution in float16 for CPUs: a graph that calculates in it is cast back and forth around each node.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.onnx.run import METADATA_KEY
from repvgg.targets.stock_layers import (
    FLOAT16,
    INPUT,
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

__all__ = ["INPUT", "build", "write"]

OPSET = 17
IR_VERSION = 8
"""What every ONNX Runtime since 1.13 (2022) reads."""

_ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh", "softmax": "Softmax"}
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
        outputs = self.write_model(model, self.normalized_pixels() if pixels else INPUT)
        names: dict[str, str] = {}
        for label, name in outputs.items():
            if name == INPUT or name in names:
                name = self.node("Identity", [name], f"{name}:{label}")  # noqa: PLW2901 - a second name for one tensor
            names[name] = label
        for node in self.nodes:
            # The last nodes give the graph's outputs, so these are named in place, not through an Identity.
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]
        sizes = [(shape[0], *tensor.shape[1:]) for tensor in model.outputs]
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
        return self.node("Transpose", [shifted], f"{INPUT}:channels_first", perm=[0, 3, 1, 2])

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
            pads=list(convolution.pads),
        )

    def pad(self, tensor: str, pads: Pads, label: str) -> str:
        top, left, bottom, right = pads
        values = np.array([0, 0, top, left, 0, 0, bottom, right], np.int64)
        return self.node("Pad", [tensor, self.constant(f"{label}/pads", values)], label)

    def dense(self, tensor: str, dense: Dense, label: str) -> str:
        operands = [tensor, self.weight(f"{dense.name}/kernel", dense.kernel)]
        if dense.bias is not None:
            operands.append(self.weight(f"{dense.name}/bias", dense.bias))
        return self.node("Gemm", operands, label)

    def average(self, tensor: str, label: str, *, keepdims: bool) -> str:
        if keepdims:
            return self.node("GlobalAveragePool", [tensor], label)
        return self.node("Flatten", [self.node("GlobalAveragePool", [tensor], f"{label}/pool")], label)

    def normalize(self, tensor: str, normalization: Normalization, label: str) -> str:
        constants = [
            self.weight(f"{normalization.name}/{part}", getattr(normalization, part))
            for part in ("gamma", "beta", "mean", "variance")
        ]
        return self.node("BatchNormalization", [tensor, *constants], label, epsilon=normalization.epsilon)

    def activate(self, tensor: str, activation: Activation, label: str) -> str:
        return self.node(_ACTIVATIONS[activation], [tensor], label)

    def combine(self, tensors: Sequence[str], how: Combination, label: str) -> str:
        if how == "concatenate":
            return self.node("Concat", tensors, label, axis=1)
        result = tensors[0]
        for index, other in enumerate(tensors[1:], start=1):
            last = index == len(tensors) - 1
            result = self.node(_COMBINATIONS[how], [result, other], label if last else f"{label}/{index}")
        return result

    def value(self, name: str, shape: Sequence[int | None], kind: int, *, channels_last: bool = False) -> Any:
        axes = ["batch", "height", "width", "channels"][: len(shape)]
        sizes = [
            size if size is not None else axis if axis == "batch" else f"{name}_{axis}"
            for size, axis in zip(shape, axes, strict=True)
        ]
        if len(shape) == 4 and not channels_last:
            sizes = [sizes[0], sizes[3], sizes[1], sizes[2]]
        return self.onnx.helper.make_tensor_value_info(name, kind, sizes)
