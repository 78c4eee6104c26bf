"""ONNX, written node by node from the deployed model's own layers.

A generic converter would trace TensorFlow's graph: transpositions around every convolution, grouped convolutions as
calls it cannot express. Here the graph holds what the network is: Conv with symmetric padding, Relu, GlobalAveragePool,
Gemm. Images go in as (N, C, H, W), the order of ONNX's own operators, and so do feature maps that come out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from repvgg.dependencies import require
from repvgg.errors import InputError
from repvgg.exporters import Settings
from repvgg.functional_graph import Call, FunctionalGraph, TensorKey
from repvgg.metadata import Metadata
from repvgg.runners.onnx import METADATA_KEY

OPSET = 17
IR_VERSION = 8
"""What every ONNX Runtime since 1.13 (2022) reads."""

INPUT, OUTPUT = "images", "logits"

_ACTIVATIONS: Mapping[str, str | None] = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softmax": "Softmax",
    "linear": None,
}


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    onnx = require("onnx", extra="onnx", purpose="Writing an ONNX file")
    proto = _Writer(onnx).convert(model)
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


class _Writer:
    """Collects nodes and constants; tensors of four axes are held as (N, C, H, W)."""

    def __init__(self, onnx: Any) -> None:
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        # A ZeroPadding2D gives no node: the convolution behind it takes its padding along.
        self.paddings: dict[str, tuple[str, list[int]]] = {}

    def convert(self, model: Any) -> Any:
        """The whole model as an ONNX ModelProto."""
        helper = self.onnx.helper
        if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4:
            shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
            raise InputError(f"ONNX export takes models with one input of images; '{model.name}' has {shapes}.")
        results = self.graph(FunctionalGraph(model), [INPUT], prefix="")
        labels = {name: OUTPUT if len(results) == 1 else label for label, name in results.items()}
        for node in self.nodes:
            # The last nodes give the graph's outputs, so these are named in place, not through an Identity.
            node.input[:] = [labels.get(name, name) for name in node.input]
            node.output[:] = [labels.get(name, name) for name in node.output]
        sizes = [tensor.shape for tensor in model.outputs]
        outputs = [self.value(label, size) for label, size in zip(labels.values(), sizes, strict=True)]
        inputs = [self.value(INPUT, model.inputs[0].shape)]
        body = helper.make_graph(self.nodes, model.name, inputs, outputs, initializer=list(self.constants.values()))
        return helper.make_model(
            body, producer_name="repvgg", ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
        )

    def graph(self, graph: FunctionalGraph, inputs: list[str], prefix: str) -> dict[str, str]:
        """Writes all calls; gives the model's outputs, from their labels to the names of tensors."""
        names: dict[TensorKey, str] = dict(zip(graph.inputs, inputs, strict=True))
        for call in graph.calls:
            label = prefix + call.output[0] + (f":{call.output[1]}" if call.output[1] else "")
            names[call.output] = self.call(call, [names[key] for key in call.inputs], label)
        return {label: names[key] for label, key in graph.outputs.items()}

    def call(self, call: Call, inputs: list[str], label: str) -> str:
        """Writes one call; gives the name of its output."""
        layer = call.layer
        if isinstance(layer, keras.Model):
            (result,) = self.graph(FunctionalGraph(layer), inputs, prefix=f"{label}/").values()
            return result
        for kind, handler in _HANDLERS.items():
            if type(layer) is kind:
                return handler(self, call, inputs, label)
        raise InputError(
            f"Layer '{layer.name}' ({type(layer).__name__}) has no counterpart in this package's ONNX export. "
            f"It writes: {', '.join(kind.__name__ for kind in _HANDLERS)}."
        )

    def node(self, operator: str, inputs: list[str], label: str, **attributes: Any) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, inputs, [label], name=label, **attributes))
        return label

    def constant(self, name: str, array: Any) -> str:
        if name not in self.constants:
            values = np.ascontiguousarray(array, dtype=np.float32)
            self.constants[name] = self.onnx.numpy_helper.from_array(values, name)
        return name

    def activation(self, activation: Any, tensor: str, label: str) -> str:
        name = keras.activations.serialize(activation)
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise InputError(f"'{label}' uses the activation {name!r}, which ONNX export does not write.")
        operator = _ACTIVATIONS[name]
        return tensor if operator is None else self.node(operator, [tensor], label)

    def value(self, name: str, shape: tuple[int | None, ...]) -> Any:
        if len(shape) == 4:
            shape = (shape[0], shape[3], shape[1], shape[2])
        axes = [f"{name}_{axis}" for axis in ("batch", "channels", "height", "width")]
        axes[0] = "batch"
        sizes = [size if size is not None else axes[index] for index, size in enumerate(shape)]
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, sizes)


def _array(variable: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def _require_channels_last(layer: Any) -> None:
    if layer.data_format != "channels_last":
        raise InputError(f"ONNX export reads channels_last models; '{layer.name}' is {layer.data_format}.")


def _zero_padding(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    _require_channels_last(call.layer)
    (top, bottom), (left, right) = call.layer.padding
    writer.paddings[label] = (inputs[0], [top, left, bottom, right])
    return label


def _convolution(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    layer = call.layer
    _require_channels_last(layer)
    source, pads = writer.paddings.get(inputs[0], (inputs[0], [0, 0, 0, 0]))
    if layer.padding == "same":
        if max(layer.strides) > 1:
            raise InputError(
                f"'{layer.name}' has padding='same' with stride {layer.strides}, which pads by the image's size. "
                "Use ZeroPadding2D and padding='valid'."
            )
        totals = [rate * (size - 1) for rate, size in zip(layer.dilation_rate, layer.kernel_size, strict=True)]
        before, after = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = [pad + more for pad, more in zip(pads, before + after, strict=True)]
    kernel = _array(layer.kernel)
    operands = [source, writer.constant(f"{layer.name}/kernel", np.transpose(kernel, (3, 2, 0, 1)))]
    if layer.use_bias:
        operands.append(writer.constant(f"{layer.name}/bias", _array(layer.bias)))
    convolved = writer.node(
        "Conv",
        operands,
        f"{label}/conv" if _is_active(layer) else label,
        kernel_shape=list(layer.kernel_size),
        strides=list(layer.strides),
        dilations=list(layer.dilation_rate),
        group=layer.groups,
        pads=pads,
    )
    return writer.activation(layer.activation, convolved, label)


def _is_active(layer: Any) -> bool:
    return bool(keras.activations.serialize(layer.activation) != "linear")


def _dense(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    layer = call.layer
    if len(call.input_shapes[0]) != 2:
        raise InputError(f"ONNX export writes Dense for vectors (N, C); '{layer.name}' gets {call.input_shapes[0]}.")
    operands = [inputs[0], writer.constant(f"{layer.name}/kernel", _array(layer.kernel))]
    if layer.use_bias:
        operands.append(writer.constant(f"{layer.name}/bias", _array(layer.bias)))
    product = writer.node("Gemm", operands, f"{label}/gemm" if _is_active(layer) else label)
    return writer.activation(layer.activation, product, label)


def _global_average(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    _require_channels_last(call.layer)
    if call.layer.keepdims:
        return writer.node("GlobalAveragePool", inputs, label)
    pooled = writer.node("GlobalAveragePool", inputs, f"{label}/pool")
    return writer.node("Flatten", [pooled], label)


def _batch_normalization(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    layer = call.layer
    channels = int(layer.moving_mean.shape[0])
    parts = {
        "gamma": _array(layer.gamma) if layer.scale else np.ones(channels),
        "beta": _array(layer.beta) if layer.center else np.zeros(channels),
        "mean": _array(layer.moving_mean),
        "variance": _array(layer.moving_variance),
    }
    if layer.axis not in (-1, len(call.input_shapes[0]) - 1):
        raise InputError(f"ONNX export reads channels_last models; '{layer.name}' normalizes axis {layer.axis}.")
    constants = [writer.constant(f"{layer.name}/{name}", part) for name, part in parts.items()]
    return writer.node("BatchNormalization", [inputs[0], *constants], label, epsilon=layer.epsilon)


def _activation(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    if keras.activations.serialize(call.layer.activation) == "softmax" and len(call.input_shapes[0]) != 2:
        raise InputError(f"ONNX export writes softmax for vectors (N, C); '{call.layer.name}' gets more axes.")
    return writer.activation(call.layer.activation, inputs[0], label)


def _relu(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    layer = call.layer
    if layer.max_value is not None or layer.negative_slope or layer.threshold:
        raise InputError(f"ONNX export writes the plain ReLU; '{layer.name}' has other settings.")
    return writer.node("Relu", inputs, label)


def _fold_binary(operator: str) -> Callable[[_Writer, Call, list[str], str], str]:
    def handler(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
        result = inputs[0]
        for index, other in enumerate(inputs[1:], start=1):
            last = index == len(inputs) - 1
            result = writer.node(operator, [result, other], label if last else f"{label}/{index}")
        return result

    return handler


def _concatenate(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    axes = len(call.input_shapes[0])
    if call.layer.axis not in (-1, axes - 1):
        raise InputError(f"ONNX export concatenates channels; '{call.layer.name}' has axis {call.layer.axis}.")
    return writer.node("Concat", inputs, label, axis=1)


def _pass_on(writer: _Writer, call: Call, inputs: list[str], label: str) -> str:
    return inputs[0]


_HANDLERS: Mapping[type, Callable[[_Writer, Call, list[str], str], str]] = {
    keras.layers.ZeroPadding2D: _zero_padding,
    keras.layers.Conv2D: _convolution,
    keras.layers.Dense: _dense,
    keras.layers.GlobalAveragePooling2D: _global_average,
    keras.layers.BatchNormalization: _batch_normalization,
    keras.layers.Activation: _activation,
    keras.layers.ReLU: _relu,
    keras.layers.Multiply: _fold_binary("Mul"),
    keras.layers.Add: _fold_binary("Add"),
    keras.layers.Concatenate: _concatenate,
    keras.layers.Dropout: _pass_on,
}
