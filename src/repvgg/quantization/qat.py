"""Quantization-aware training: from a trained network to one with fake quantization, and out again."""

from dataclasses import asdict
from typing import Any

import keras
import numpy as np

from repvgg.base.errors import InputError
from repvgg.blocks.fake_quantization import (
    QUANTIZED,
    FakeQuantization,
    Precision,
    QuantizedBlock,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedGlobalAveragePooling2D,
    weight_scale,
)
from repvgg.blocks.layers import BatchNorm, ReparameterizableBlock, SinglePath
from repvgg.conversion.reparameterization import without_auxiliary_outputs
from repvgg.conversion.self_check import check_block
from repvgg.models.copying import Copier
from repvgg.models.layers import Functional, all_layers, require_float_weights
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.quantization.qat_scales import LayerScales, QuantizationScales
from repvgg.runners.keras import to_numpy

_STOCK: dict[Any, Any] = {
    keras.layers.Conv2D: QuantizedConv2D,
    keras.layers.Dense: QuantizedDense,
    keras.layers.GlobalAveragePooling2D: QuantizedGlobalAveragePooling2D,
}
_STOCK_AGAIN = {quantized: stock for stock, quantized in _STOCK.items()}


def prepare_qat(
    model: Any,
    *,
    per_channel: bool = False,
    weight_bits: int = 8,
    activation_bits: int = 8,
    momentum: float = 0.99,
    calibration_batches: int = 4,
) -> Any:
    """A new model with fake quantization that can be trained on; the original is not touched.

    Each block becomes its equivalent convolution with fake-quantized kernel and input, differentiable down to the
    branches' weights; batch normalizations use their running statistics and keep them. Conv2D, Dense and
    GlobalAveragePooling2D layers, so also those of a deployed model, are treated likewise. Channel attention, other
    layers and sums stay in float; batch normalizations outside blocks are frozen; outputs of auxiliary classifiers are
    left out.

    Train it with any optimizer, loss and `fit`; a hundredth of the learning rate of training is a good start. The first
    batches only measure ranges. Then call `finish_qat`.

    Args:
        per_channel: a grid for each output channel of a kernel; otherwise one for all.
        weight_bits, activation_bits: 2 to 16; files are written for 8 and less.
        momentum: share of a range that each batch leaves.
        calibration_batches: training batches that only measure ranges.

    Returns:
        A model with the inputs and outputs of `model`, in float32 (float64 where `model` is).

    Raises:
        InputError: if the model's structure cannot be seen, it has nothing to quantize, or a number makes no grid.

    Example:
        >>> prepared = prepare_qat(model)
        >>> prepared.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss)
        >>> prepared.fit(images, labels, epochs=3)
        >>> deployed, scales = finish_qat(prepared)
    """
    precision = Precision(weight_bits, activation_bits, per_channel, momentum, calibration_batches)
    if not isinstance(model, Functional | keras.Sequential) or not model.built:
        raise InputError(
            f"'{getattr(model, 'name', model)}' is not a built functional or Sequential model, so its layers cannot be "
            "replaced by fake-quantized ones."
        )
    require_float_weights(model)
    layers = list(all_layers(model))
    if any(isinstance(layer, QUANTIZED) for layer in layers):
        raise InputError(f"'{model.name}' was prepared for quantization-aware training before.")
    for layer in layers:
        if isinstance(layer, keras.layers.Wrapper) and any(_is_weighted(inner) for inner in all_layers(layer)):
            raise InputError(
                f"'{layer.name}' ({type(layer).__name__}) wraps a layer that would have to be fake-quantized, which is "
                "not supported. Apply it without the wrapper."
            )
    if not any(_is_weighted(layer) for layer in layers):
        raise InputError(f"'{model.name}' has no block, Conv2D or Dense layer, so there is nothing to quantize.")
    in_float = _attention_layers(layers)
    wide = max(str(layer.variable_dtype) for layer in layers if _is_weighted(layer))
    dtype = "float64" if wide == "float64" else "float32"

    def replace(layer: Any) -> Any:
        config = {**layer.get_config(), "dtype": dtype}
        if isinstance(layer, ReparameterizableBlock):
            return QuantizedBlock(type(layer).from_config(config), precision, name=layer.name, dtype=dtype)
        if type(layer) in _STOCK and layer.name not in in_float:
            return _STOCK[type(layer)].from_config({**config, "precision": asdict(precision)})
        return type(layer).from_config(config)

    copier = Copier(replace)
    prepared = copier.model(without_auxiliary_outputs(model))
    for original, copy in copier.pairs():
        if isinstance(copy, QuantizedBlock):
            copy.block.set_weights(original.get_weights())
            copy.block.trainable = original.trainable
        else:
            _copy_weights(original, copy)
            copy.trainable = original.trainable
        for layer in all_layers(copy):
            if isinstance(layer, keras.layers.BatchNormalization | BatchNorm) and not isinstance(copy, QuantizedBlock):
                layer.trainable = False
    set_metadata(prepared, get_metadata(model), form="training")
    return prepared


def finish_qat(model: Any) -> tuple[Any, QuantizationScales]:
    """The trained network as a deployed model of stock layers in float, and the grids it was trained on.

    The model's weights are the folded ones, not rounded; rounded to the grids they are what was trained. Each folded
    block is compared with its branches before it is handed over.

    Raises:
        InputError: if the model does not come from `prepare_qat`, or was not trained for its calibration batches.
        VerificationError: if a block's two forms differ.

    Example:
        >>> deployed, scales = finish_qat(prepared)
        >>> Path("scales.json").write_text(scales.to_json())
    """
    quantized = [layer for layer in all_layers(model) if isinstance(layer, QUANTIZED)]
    if not quantized:
        raise InputError(f"'{model.name}' has no fake-quantized layers. Make a model that has with prepare_qat(model).")
    for layer in quantized:
        seen = int(to_numpy(layer.input_range.batches))
        if seen < layer.precision.calibration_batches:
            raise InputError(
                f"'{layer.name}' has seen {seen} training batches, and needs {layer.precision.calibration_batches} to "
                "know the range of its input. Train the model first, or give it fewer calibration batches."
            )

    def replace(layer: Any) -> Any:
        if isinstance(layer, QuantizedBlock):
            return SinglePath.of_block(layer.block)
        config = layer.get_config()
        if type(layer) in _STOCK_AGAIN:
            config.pop("precision")
            return _STOCK_AGAIN[type(layer)].from_config(config)
        return type(layer).from_config(config)

    copier = Copier(replace)
    deployed = copier.model(model)
    scales: dict[str, LayerScales] = {}
    for original, copy in copier.pairs():
        if isinstance(copy, SinglePath):
            copy.copy_weights(original.block)
            check_block(original.block, copy)
        else:
            _copy_weights(original, copy)
            copy.trainable = original.trainable
        if isinstance(original, QUANTIZED):
            weighted = copy.convolution if isinstance(copy, SinglePath) else copy
            if weighted.name in scales:
                raise InputError(f"Two layers are called '{weighted.name}', so their scales cannot be told apart.")
            scales[weighted.name] = _scales_of(original, weighted)
    set_metadata(deployed, get_metadata(model), form="deploy")
    precision = quantized[0].precision
    return deployed, QuantizationScales(scales, precision.weight_bits, precision.activation_bits)


def simulate(model: Any, scales: QuantizationScales) -> Any:
    """A deployed model with fake quantization on given grids: what a file in integers has to give.

    Raises:
        InputError: if the scales are those of another model.
    """
    per_channel = any(layer.weight is not None and len(layer.weight) > 1 for layer in scales.layers.values())
    simulated = prepare_qat(
        model,
        per_channel=per_channel,
        weight_bits=scales.weight_bits,
        activation_bits=scales.activation_bits,
        calibration_batches=1,
    )
    layers = {layer.name: layer for layer in all_layers(simulated) if isinstance(layer, QUANTIZED)}
    if set(layers) != set(scales.layers):
        different = ", ".join(sorted(set(layers) ^ set(scales.layers)))
        raise InputError(f"The scales are not those of '{model.name}'. Only one of them has: {different}.")
    levels = 2**scales.activation_bits - 1
    for name, layer in layers.items():
        given = scales.layers[name]
        found = _scales_of(layer, layer).weight
        if found is not None and not _close(found, given.weight):
            raise InputError(f"The scales are not those of '{model.name}': the kernel of '{name}' has others.")
        grid: FakeQuantization = layer.input_range
        grid.minimum.assign(-given.input_zero_point * given.input_scale)
        grid.maximum.assign((levels - given.input_zero_point) * given.input_scale)
        grid.batches.assign(1)
    set_metadata(simulated, form="deploy")
    return simulated


def _close(found: tuple[float, ...], given: tuple[float, ...] | None) -> bool:
    return given is not None and len(found) == len(given) and np.allclose(found, given, rtol=1e-5)


def _scales_of(quantized: Any, weighted: Any) -> LayerScales:
    """The grids of a quantized layer, whose kernel is that of `weighted`."""
    scale, zero = (to_numpy(part) for part in quantized.input_range.grid())
    weight = None
    if isinstance(weighted, keras.layers.Conv2D | keras.layers.Dense):
        kernel = keras.ops.convert_to_tensor(weighted.kernel)
        weight = tuple(float(one) for one in to_numpy(weight_scale(kernel, quantized.precision)).ravel())
    return LayerScales(float(scale), int(zero), weight)


def _is_weighted(layer: Any) -> bool:
    return isinstance(layer, ReparameterizableBlock) or type(layer) in (keras.layers.Conv2D, keras.layers.Dense)


def _attention_layers(layers: list[Any]) -> set[str]:
    """Names of the layers that are the channel attention of a deployed block."""
    by_name = {layer.name: layer for layer in layers}
    paths = [SinglePath.find(name, by_name) for name in by_name]
    return {layer.name for path in paths if path for layer in path.layers.values() if layer is not path.convolution}


def _copy_weights(original: Any, copy: Any) -> None:
    """Kernels, biases and whatever else a layer has, but not the ranges, which only one side may have."""
    targets, sources = _weights_but_ranges(copy), _weights_but_ranges(original)
    for target, source in zip(targets, sources, strict=True):
        target.assign(source.value)


def _weights_but_ranges(layer: Any) -> list[Any]:
    ranges = {
        id(variable) for one in all_layers(layer) if isinstance(one, FakeQuantization) for variable in one.weights
    }
    return [variable for variable in layer.weights if id(variable) not in ranges]
