"""ONNX with quantize and dequantize nodes (QDQ), by ONNX Runtime's own quantizer."""

import io
import logging
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.dependencies import require
from repvgg.exporters import Settings
from repvgg.exporters import onnx as float_onnx
from repvgg.metadata import Metadata
from repvgg.quantization.schemes import Scheme
from repvgg.quantization.steps import batches
from repvgg.runners.onnx import METADATA_KEY

BATCH = 8
"""The histograms of percentile and entropy hold every tensor of a batch in memory."""

PERCENTILE = 99.99


def quantize(
    model: Any, path: Path, metadata: Metadata, images: np.ndarray, scheme: Scheme, float_layers: Sequence[str]
) -> None:
    """Writes `model` with 8-bit weights (signed) and activations (unsigned), which is what x86 and ARM kernels take."""
    ort = require("onnxruntime.quantization", extra="onnx", purpose="INT8 for ONNX Runtime")
    onnx = require("onnx", extra="onnx", purpose="INT8 for ONNX Runtime")
    methods = ort.CalibrationMethod
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, prepared = Path(folder, "float.onnx"), Path(folder, "prepared.onnx")
        float_onnx.write(model, source, metadata, Settings())
        require("onnxruntime.quantization.shape_inference", extra="onnx", purpose="INT8").quant_pre_process(
            source, prepared, skip_optimization=True, skip_symbolic_shape=True
        )
        ort.quantize_static(
            prepared,
            path,
            _reader(ort)(images, float_onnx.INPUT, model.inputs[0].shape[0] or BATCH),
            quant_format=ort.QuantFormat.QDQ,
            per_channel=scheme.per_channel,
            reduce_range=saturates(),
            activation_type=ort.QuantType.QUInt8,
            weight_type=ort.QuantType.QInt8,
            nodes_to_exclude=_nodes(onnx.load(prepared), float_layers),
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
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {METADATA_KEY: metadata.to_json()})
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def saturates() -> bool:
    """Whether this machine's 8-bit products may overflow on the way, so that weights get 7 bits only.

    x86 before VNNI adds pairs of products in 16 bits. Where nothing can be found out, caution costs a little precision.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    cpu = Path("/proc/cpuinfo")
    return not (cpu.exists() and "vnni" in cpu.read_text())


def _nodes(proto: Any, layers: Sequence[str]) -> list[str]:
    """The nodes of layers: those called like the layer, or 'layer/conv' and the like where it gives several."""
    return [
        node.name
        for node in proto.graph.node
        if any(node.name == layer or node.name.startswith(f"{layer}/") for layer in layers)
    ]


def _reader(ort: Any) -> Any:
    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        """Batches of calibration images, as ONNX Runtime asks for them."""

        def __init__(self, images: np.ndarray, name: str, size: int) -> None:
            self.name = name
            self.parts = [part for part in batches(images, size) if len(part) == size] or [images]
            self.set_range(0, len(self.parts))

        def __len__(self) -> int:
            return len(self.parts)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.waiting: Iterator[np.ndarray] = iter(self.parts[start_index:end_index])

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.waiting, None)
            return None if part is None else {self.name: np.ascontiguousarray(part.transpose(0, 3, 1, 2))}

    return Reader


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the quantizer's progress, and its advice to preprocess, which it gives although that was done."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
