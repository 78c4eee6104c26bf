"""ONNX with quantize and dequantize nodes for grids that are given, not measured: after quantization-aware training.

ONNX Runtime, OpenVINO and TensorRT read such a graph as a network in integers. Kernels are stored in int8 and biases in
int32, in units of what the two grids multiply to; every quantized layer's input passes a QuantizeLinear and a
DequantizeLinear, and runtimes move these through ReLU and pooling to where they cost nothing.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.errors import InputError, VerificationError
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.base.metadata import Metadata
from repvgg.base.processor import PORTABLE, VNNI, overflows
from repvgg.models.metadata import get_metadata
from repvgg.quantization.qat import simulate
from repvgg.quantization.qat_scales import LayerScales, QuantizationScales
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.targets import Settings
from repvgg.targets.onnx import write as float_onnx
from repvgg.targets.onnx.run import METADATA_KEY
from repvgg.verification import VerificationReport, verify

PORTABLE_BITS = 7
"""Kernels of no more have integers from -63 to 63: with inputs from 0 to 255, pairs of products fit into 16 bits."""

RTOL = 0.1
"""Relative error of the logits, to the same network in rounded floats.

A sum that lies between two points of the next grid is rounded one way by integers and the other way by floats, whose
last digits differ. That is one step of 255 in a few of many activations, and it is carried on. A wrong grid or a wrong
kernel is off by the size of the logits.
"""

_INT32 = 2**31 - 1


def export_qdq(
    model: Any, scales: QuantizationScales, path: str | Path, *, images: Any = None, force: bool = False
) -> VerificationReport:
    """Writes a deployed model and its grids, as `finish_qat` gives them, as an ONNX file in 8-bit integers.

    The file is loaded by ONNX Runtime and compared with the same network in rounded floats before it gets its name.

    Args:
        path: ends in `.onnx`.
        images: preprocessed images (N, H, W, C) to compare on; probe inputs if None.
        force: replace a file that is there.

    Raises:
        InputError: if grids and model do not belong together, there are more than 8 bits, a layer cannot be written, or
            kernels have 8 bits and products of 8 bits overflow on this machine.
        OutputExistsError: if the file exists and `force` is not set.
        VerificationError: if the file's answers differ; it is removed.

    Example:
        >>> deployed, scales = finish_qat(prepared)
        >>> export_qdq(deployed, scales, "model-int8.onnx").top1_agreement
        1.0
    """
    path = Path(path)
    if path.suffix != ".onnx":
        raise InputError(f"An ONNX file ends in '.onnx'. Received: '{path.name}'.")
    refuse_existing(path, force=force)
    if made_for(scales) == VNNI and overflows():
        raise InputError(
            "Kernels of 8 bits are for processors with VNNI, and their file cannot be proved here, where products of 8 "
            "bits may overflow. Prepare the model with weight_bits=7, or export on a processor with VNNI."
        )
    reference = KerasRunner(simulate(model, scales))
    reference.name = f"{model.name} in rounded floats"
    with atomic_output(path) as temporary:
        write(model, scales, temporary, replace(get_metadata(model), form="deploy"))
        runner = load_runner(temporary)
        runner.name = path.name
        report = verify(reference, runner, images, rtol=RTOL)
        if not report.passed:
            raise VerificationError(f"'{path.name}' was not kept: {report.summary()}")
    return report


def write(
    model: Any, scales: QuantizationScales, path: Path, metadata: Metadata, settings: Settings | None = None
) -> None:
    """Writes the file, unproved; its metadata say which processors it is made for."""
    onnx = require("onnx", extra="onnx", purpose="Writing an ONNX file")
    proto = float_onnx.build(model, settings or Settings())
    quantize_graph(proto, scales)
    per_channel = any(layer.weight is not None and len(layer.weight) > 1 for layer in scales.layers.values())
    grids = f"{'per-channel' if per_channel else 'per-tensor'} weights of {scales.weight_bits} bits"
    told = {"scheme": f"trained in rounded numbers, {grids}", "processor": made_for(scales)}
    metadata = replace(metadata, precision="int8", quantization=told)
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def made_for(scales: QuantizationScales) -> str:
    """The kind of processor, `portable` or `vnni`, that a file with these grids is right on."""
    return PORTABLE if scales.weight_bits <= PORTABLE_BITS else VNNI


def quantize_graph(proto: Any, scales: QuantizationScales) -> None:
    """Puts the grids into a float ModelProto of this package's own writing, in place.

    Raises:
        InputError: if the graph lacks a layer that the grids name, or there are more than 8 bits.
    """
    if max(scales.weight_bits, scales.activation_bits) > 8:
        raise InputError(
            f"These grids have {scales.weight_bits} bits for weights and {scales.activation_bits} for activations, and "
            "ONNX files are written in 8. Prepare the model with 8 bits or less."
        )
    graph = _Graph(proto, scales)
    missing = set(scales.layers) - graph.written
    if missing:
        raise InputError(f"The graph has no layer for these scales: {', '.join(sorted(missing))}.")


class _Graph:
    """One rewriting; done when it is made.

    Attributes:
        written: the layers that were found.
    """

    def __init__(self, proto: Any, scales: QuantizationScales) -> None:
        self.onnx = require("onnx", extra="onnx", purpose="Writing an ONNX file")
        self.scales = scales
        self.graph = proto.graph
        self.constants = {constant.name: constant for constant in self.graph.initializer}
        self.written: set[str] = set()
        self._known: dict[tuple[str, float, int], str] = {}
        nodes: list[Any] = []
        for node in self.graph.node:
            nodes += self._rewritten(node)
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        del self.graph.initializer[:]
        self.graph.initializer.extend(constant for name, constant in self.constants.items() if name in used)

    def _rewritten(self, node: Any) -> Iterator[Any]:
        """The node behind those that its operands now need."""
        layer = self._layer_of(node)
        if layer not in self.scales.layers:
            yield node
            return
        self.written.add(layer)
        grid = self.scales.layers[layer]
        source = node.input[0]
        yield from self._rounded_input(source, grid)
        node.input[0] = self._known[source, grid.input_scale, grid.input_zero_point]
        if grid.weight is not None:
            yield from self._integer_weights(node, layer, grid)
        yield node

    def _layer_of(self, node: Any) -> str:
        if node.op_type in ("Conv", "Gemm"):
            return str(node.input[1]).removesuffix("/kernel")
        if node.op_type == "GlobalAveragePool":
            # The node of a layer in a nested model, or of its second call, has a longer name.
            return str(node.name).removesuffix("/pool").rpartition("/")[2].partition(":")[0]
        return ""

    def _rounded_input(self, source: str, grid: LayerScales) -> Iterator[Any]:
        key = (source, grid.input_scale, grid.input_zero_point)
        if key in self._known:
            return
        levels = 2**self.scales.activation_bits - 1
        label = f"{source}/quantized" + (
            f":{len(self._known)}" if any(source == one for one, *_ in self._known) else ""
        )
        operands = [
            self._constant(f"{label}/scale", np.float32(grid.input_scale)),
            self._constant(f"{label}/zero_point", np.uint8(grid.input_zero_point)),
        ]
        codes = label
        yield self._node("QuantizeLinear", [source, *operands], codes)
        if levels < 255:
            # QuantizeLinear cuts off at 255, and the grid ends before.
            ends = [self._constant(f"{label}/{name}", np.uint8(end)) for name, end in (("low", 0), ("high", levels))]
            codes = f"{label}/clipped"
            yield self._node("Clip", [label, *ends], codes)
        self._known[key] = f"{label}/dequantized"
        yield self._node("DequantizeLinear", [codes, *operands], self._known[key])

    def _integer_weights(self, node: Any, layer: str, grid: LayerScales) -> Iterator[Any]:
        kernel = self.onnx.numpy_helper.to_array(self.constants[node.input[1]])
        # (out, in, height, width) for a convolution, (in, out) for a matrix product.
        axis = 0 if node.op_type == "Conv" else 1
        bias = self.onnx.numpy_helper.to_array(self.constants[node.input[2]]) if len(node.input) > 2 else None
        scale = np.asarray(grid.weight, np.float32)
        if scale.size not in (1, kernel.shape[axis]):
            raise InputError(f"'{layer}' has {kernel.shape[axis]} output channels, and scales for {scale.size}.")
        unit = np.float64(grid.input_scale)
        if bias is not None:
            # A channel with next to no weights has so fine a grid that its bias would not fit into 32 bits.
            largest = np.abs(bias) if scale.size > 1 else np.abs(bias).max()
            scale = np.maximum(scale, largest / (unit * _INT32) * (1 + 1e-6)).astype(np.float32)
        shape = [1] * kernel.ndim
        shape[axis] = -1
        limit = 2 ** (self.scales.weight_bits - 1) - 1
        codes = np.clip(np.round(kernel / scale.reshape(shape)), -limit, limit).astype(np.int8)
        yield self._stored(f"{layer}/kernel", codes, scale, axis)
        node.input[1] = f"{layer}/kernel/dequantized"
        if bias is not None:
            step = scale.astype(np.float64) * unit
            stored = np.round(bias / step).astype(np.int32)
            yield self._stored(f"{layer}/bias", stored, step.astype(np.float32), 0)
            node.input[2] = f"{layer}/bias/dequantized"

    def _stored(self, name: str, codes: np.ndarray, scale: np.ndarray, axis: int) -> Any:
        """A constant in integers and the node that makes numbers of it."""
        scale = scale.reshape(-1) if scale.size > 1 else scale.reshape(())
        operands = [
            self._constant(f"{name}/codes", codes),
            self._constant(f"{name}/scale", scale),
            self._constant(f"{name}/zero_point", np.zeros(scale.shape, codes.dtype)),
        ]
        per_channel = {"axis": axis} if scale.size > 1 else {}
        return self._node("DequantizeLinear", operands, f"{name}/dequantized", **per_channel)

    def _node(self, operator: str, inputs: list[str], label: str, **attributes: Any) -> Any:
        return self.onnx.helper.make_node(operator, inputs, [label], name=label, **attributes)

    def _constant(self, name: str, value: Any) -> str:
        self.constants[name] = self.onnx.numpy_helper.from_array(np.asarray(value), name)
        return name
