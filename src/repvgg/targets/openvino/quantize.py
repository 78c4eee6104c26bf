"""OpenVINO models in INT8, by NNCF, which is OpenVINO's own quantizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.dependencies import require
from repvgg.base.metadata import Metadata
from repvgg.base.quiet import quiet
from repvgg.quantization.schemes import Scheme
from repvgg.quantization.steps import whole_batches
from repvgg.targets import Settings
from repvgg.targets.openvino.run import METADATA_PATH
from repvgg.targets.openvino.write import build
from repvgg.targets.operations import INPUT, PROBABILITIES

BATCH = 8


def quantize(model: Any, images: np.ndarray, scheme: Scheme, float_layers: Sequence[str], settings: Settings) -> Any:
    """The model as an `openvino.Model` with 8-bit weights and activations."""
    nncf = require("nncf", extra="openvino", purpose="INT8 for OpenVINO")
    with quiet("nncf"):
        network = build(model, settings)
        kernels = {node.get_friendly_name(): node.input_value(1).get_node().data.copy() for node in _weighted(network)}
        size = settings.batch or model.inputs[0].shape[0] or BATCH
        parts = [_as_input(part, settings) for part in whole_batches(images, size)]
        nodes = _in_float(network, float_layers)
        quantized = nncf.quantize(
            network,
            nncf.Dataset(parts),
            # Symmetric where values are symmetric, and from 0 on behind a ReLU.
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(parts),
            ignored_scope=nncf.IgnoredScope(names=nodes) if nodes else None,
            advanced_parameters=_advanced(scheme),
        )
        _put_on_grid(quantized, kernels, scheme.weight_levels)
        return quantized


def save(artifact: Any, path: Path, metadata: Metadata) -> None:
    """Writes `path` and its `.bin`."""
    openvino = require("openvino", extra="openvino", purpose="INT8 for OpenVINO")
    artifact.set_rt_info(metadata.to_json(), METADATA_PATH)
    openvino.save_model(artifact, path, compress_to_fp16=False)


def _advanced(scheme: Scheme) -> Any:
    advanced = require("nncf.quantization.advanced_parameters", extra="openvino", purpose="INT8 for OpenVINO")
    ranges = require("nncf.quantization.range_estimator", extra="openvino", purpose="INT8 for OpenVINO")
    estimators = ranges.RangeEstimatorParametersSet
    return advanced.AdvancedQuantizationParameters(
        # NNCF's grids of 7 bits have 63.5 steps to the largest weight; `_put_on_grid` has the schemes' own.
        overflow_fix=advanced.OverflowFix.DISABLE,
        # Biases are corrected before, in the same way for every target, where the scheme wants it.
        disable_bias_correction=True,
        weights_quantization_params=advanced.QuantizationParameters(per_channel=scheme.per_channel),
        activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
        activations_range_estimator_params={
            "minmax": estimators.MINMAX,
            "percentile": estimators.MEAN_QUANTILE,
            "entropy": estimators.HISTOGRAM,
        }[scheme.calibrator],
    )


def _weighted(network: Any) -> list[Any]:
    """The operations that have a kernel."""
    kinds = ("Convolution", "GroupConvolution", "MatMul")
    return [node for node in network.get_ops() if node.get_type_name() in kinds]


def _put_on_grid(network: Any, kernels: Mapping[str, np.ndarray], levels: int) -> None:
    """Stores the quantized layers' kernels in integers from -levels to levels, in place."""
    operations = require("openvino", extra="openvino", purpose="INT8 for OpenVINO").opset13
    for node in _weighted(network):
        product = node.input_value(1).get_node()
        if product.get_type_name() != "Multiply":
            continue  # it stays in float
        kernel = kernels[node.get_friendly_name()].astype(np.float64)
        # NNCF has said which axes share a grid; an axis of its own has as many scales as the kernel is long.
        shape = product.input_value(1).get_node().data.shape
        shared = tuple(axis for axis in range(kernel.ndim) if not shape or shape[axis] == 1)
        largest = np.abs(kernel).max(axis=shared, keepdims=True)
        scales = np.where(largest > 0, largest, levels) / levels
        codes = operations.constant(np.round(kernel / scales).astype(np.int8))
        steps = operations.constant(scales.astype(np.float32))
        exact = operations.multiply(operations.convert(codes, "f32"), steps)
        exact.set_friendly_name(product.get_friendly_name())
        node.input(1).replace_source_output(exact.output(0))


def _as_input(images: np.ndarray, settings: Settings) -> np.ndarray:
    """Prepared images as the network with these settings takes them."""
    if settings.preprocessing is not None:
        return settings.preprocessing.restore(images)
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


_PASSING = ("ReduceMean",)
"""Without weights; in float where the layer behind them is."""


def _in_float(network: Any, layers: Sequence[str]) -> list[str]:
    """The operations of layers (called like the layer, or "layer/product" and the like), and those around them."""
    names = []
    for node in network.get_ops():
        name = node.get_friendly_name()
        if node.get_type_name() in ("Constant", "Parameter", "Result"):
            continue
        if name.startswith((f"{INPUT}:", f"{PROBABILITIES}:")):
            names.append(name)
        if any(name == layer or name.startswith(f"{layer}/") for layer in layers):
            names.append(name)
            before = node.input_value(0).get_node()
            if before.get_type_name() in _PASSING:
                names.append(before.get_friendly_name())
    return names
