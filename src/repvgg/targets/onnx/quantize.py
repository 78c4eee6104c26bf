"""ONNX with quantize and dequantize nodes (QDQ), by ONNX Runtime's own quantizer."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.files import scratch_folder
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.base.processor import LEVELS
from repvgg.base.quiet import quiet
from repvgg.quantization.schemes import Scheme
from repvgg.quantization.steps import whole_batches
from repvgg.targets import Settings
from repvgg.targets.onnx import write as float_onnx
from repvgg.targets.onnx.run import METADATA_KEY
from repvgg.targets.operations import INPUT, PROBABILITIES

BATCH = 8
"""The histograms of percentile and entropy hold every tensor of a batch in memory."""

PERCENTILE = 99.99


def quantize(model: Any, images: np.ndarray, scheme: Scheme, float_layers: Sequence[str], settings: Settings) -> Any:
    """The model as an `onnx.ModelProto` with 8-bit weights (signed) and activations (unsigned)."""
    ort = require("onnxruntime.quantization", extra="onnx", purpose="INT8 for ONNX Runtime")
    onnx = require("onnx", extra="onnx", purpose="INT8 for ONNX Runtime")
    shapes = require("onnxruntime.quantization.shape_inference", extra="onnx", purpose="INT8 for ONNX Runtime")
    methods = ort.CalibrationMethod
    size = settings.batch or model.inputs[0].shape[0] or BATCH
    with scratch_folder() as folder, quiet():
        source, prepared, quantized = (folder / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        float_onnx.write(model, source, Metadata(), settings)
        shapes.quant_pre_process(source, prepared, skip_optimization=True, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        excluded = _in_float(graph, float_layers)
        ort.quantize_static(
            prepared,
            quantized,
            _reader(ort)(images, INPUT, size, settings.preprocessing),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=scheme.per_channel,
            reduce_range=scheme.weight_levels < LEVELS,
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=excluded,
            calibrate_method={
                "minmax": methods.MinMax,
                "percentile": methods.Percentile,
                "entropy": methods.Entropy,
            }[scheme.calibrator],
            extra_options={
                # Logits keep their precision: eight bits would make ties of close ones.
                "OpTypesToExcludeOutputQuantization": ["Gemm"],
                "CalibPercentile": PERCENTILE,
                # Batch after batch, so that memory does not grow with the number of images.
                "CalibStridedMinMax": 1,
            },
        )
        result = onnx.load(quantized)
    _read_in_float(onnx, result.graph, graph, excluded)
    return result


def save(artifact: Any, path: Path, metadata: Metadata) -> None:
    """Writes `path`."""
    onnx = require("onnx", extra="onnx", purpose="INT8 for ONNX Runtime")
    onnx.helper.set_model_props(artifact, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(artifact)
    path.write_bytes(artifact.SerializeToString())


_PASSING = ("Flatten", "GlobalAveragePool")
"""Without weights; in float where the layer behind them is."""


def _in_float(graph: Any, layers: Sequence[str]) -> list[str]:
    """The nodes of layers (called like the layer, or 'layer/conv' and the like), and those around the network."""
    producers = {name: node for node in graph.node for name in node.output}
    names = [
        node.name for node in graph.node if node.name.startswith((f"{INPUT}:", f"{PROBABILITIES}:"))
    ]  # fmt: skip
    for node in graph.node:
        if any(node.name == layer or node.name.startswith(f"{layer}/") for layer in layers):
            names.append(node.name)
            before = producers.get(node.input[0])
            while before is not None and before.op_type in _PASSING:
                names.append(before.name)
                before = producers.get(before.input[0])
    return names


def _read_in_float(onnx: Any, graph: Any, original: Any, excluded: Sequence[str]) -> None:
    """Lets layers in float read what was there before it was rounded.

    The quantizer rounds the output of a quantized layer whoever reads it. It also takes a ReLU out where rounding cuts
    off negative values, so this puts it back in.
    """
    activated = {node.output[0] for node in original.node if node.op_type == "Relu"}
    producers = {name: node for node in graph.node for name in node.output}
    nodes: dict[str, Any] = {}
    for node in graph.node:
        rounded = producers.get(node.input[0]) if node.name in excluded else None
        if rounded is not None and rounded.op_type == "DequantizeLinear":
            exact = producers[rounded.input[0]].input[0]
            if exact in activated:
                relu = onnx.helper.make_node("Relu", [exact], [f"{exact}:float"], name=f"{exact}:float")
                nodes.setdefault(relu.name, relu)
                exact = relu.output[0]
            node.input[0] = exact
        nodes[node.name] = node
    kept = list(nodes.values())
    outputs = {output.name for output in graph.output}
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        read = outputs.union(*(node.input for node in kept))
        kept = [node for node in kept if node.op_type != kind or node.output[0] in read]
    del graph.node[:]
    graph.node.extend(kept)
    read = outputs.union(*(node.input for node in kept))
    constants = [constant for constant in graph.initializer if constant.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)


def _reader(ort: Any) -> Any:
    class Reader(ort.CalibrationDataReader):
        """Batches of calibration images, as ONNX Runtime asks for them."""

        def __init__(self, images: np.ndarray, name: str, size: int, pixels: Preprocessing | None) -> None:
            self.name, self.pixels = name, pixels
            self.parts = list(whole_batches(images, size))
            self.set_range(0, len(self.parts))

        def __len__(self) -> int:
            return len(self.parts)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.waiting: Iterator[np.ndarray] = iter(self.parts[start_index:end_index])

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.waiting, None)
            if part is None:
                return None
            if self.pixels is not None:
                return {self.name: self.pixels.restore(part)}
            return {self.name: np.ascontiguousarray(part.transpose(0, 3, 1, 2))}

    return Reader
