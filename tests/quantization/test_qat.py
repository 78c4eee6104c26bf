"""Quantization-aware training: what is rounded, where gradients go, and what is handed over."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from helpers import (
    BACKEND,
    SQUEEZE_EXCITE,
    Array,
    assert_same_values,
    convolve,
    detached,
    gradients,
    infer,
    random_images,
    relative_error,
    to_numpy,
    trained_like,
    values_of,
)
from prepared import IMAGES, LAYERS, both_grids, calibrated, finished, tensor, tiny
from repvgg.base.errors import FileError, InputError
from repvgg.blocks import BLOCKS, RepVGGBlock
from repvgg.blocks.fake_quantization import FakeQuantization, Precision, QuantizedBlock, fake_quantized_kernel
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.quantization.qat import finish_qat, prepare_qat, simulate
from repvgg.quantization.qat_scales import LayerScales, QuantizationScales
from repvgg.quantization.scaling import scale_channels
from sampling import FULL

pytestmark = pytest.mark.processor

LABELS = np.arange(8) % 5


def numpy_range(low: float, high: float, bits: int = 8) -> tuple[float, float]:
    """Scale and zero point of a range that is stretched to hold 0."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / (2**bits - 1)
    return scale, np.round(-low / scale)


def numpy_rounded(values: Array, low: float, high: float, bits: int = 8) -> Array:
    scale, zero = numpy_range(low, high, bits)
    result: Array = (np.clip(np.round(values / scale) + zero, 0, 2**bits - 1) - zero) * scale
    return result


def quantizer(low: float, high: float, bits: int = 8) -> FakeQuantization:
    layer = FakeQuantization(Precision(activation_bits=bits, calibration_batches=1))
    layer(tensor([low, high]), training=True)
    return layer


# The grids


@pytest.mark.backends
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("low", "high"), [(-1.7, 2.9), (0.0, 3.3), (0.5, 2.0), (-2.0, -0.5)])
def test_inputs_are_rounded_as_in_numpy(low: float, high: float, bits: int) -> None:
    values = np.random.default_rng(0).uniform(-4, 4, 2000).astype("float32")
    layer = quantizer(low, high, bits)
    expected = numpy_rounded(values.astype("float64"), low, high, bits)
    found = to_numpy(detached(layer(tensor(values))))
    # A value between two points may go to either in another precision; one in a thousand is far more than do.
    step, _ = numpy_range(low, high, bits)
    assert np.mean(np.abs(found - expected) > 1e-5) < 1e-3
    assert np.abs(found - expected).max() < 1.001 * step
    assert len(np.unique(found)) <= 2**bits
    assert to_numpy(detached(layer(tensor([0.0]))))[0] == 0


@pytest.mark.backends
@both_grids
@pytest.mark.parametrize("bits", [8, 4])
def test_kernels_are_rounded_as_in_numpy(per_channel: bool, bits: int) -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 3, 4, 6)).astype("float32")
    kernel[..., 2] *= 30
    kernel[..., 4] = 0
    largest = np.abs(kernel).max(axis=(0, 1, 2) if per_channel else None, keepdims=True)
    scale = np.where(largest > 0, largest, 1).astype("float32") / np.float32(2 ** (bits - 1) - 1)
    found = fake_quantized_kernel(tensor(kernel), Precision(weight_bits=bits, per_channel=per_channel))
    assert relative_error(np.round(kernel / scale) * scale, found) < 1e-6
    assert np.abs(np.round(to_numpy(found) / scale)).max() == 2 ** (bits - 1) - 1


@pytest.mark.backends
def test_gradients_pass_rounding_and_stop_where_values_are_cut_off() -> None:
    values = np.array([-3.0, -0.9, -0.2, 0.0, 0.3, 1.9, 2.5], "float32")
    weights = np.arange(1.0, 8.0, dtype="float32")
    layer = quantizer(-1.0, 2.0)
    given, kernel = keras.Variable(values), keras.Variable(np.linspace(-1, 1, 12, dtype="float32").reshape(1, 1, 3, 4))
    (on_inputs,) = gradients(lambda: keras.ops.sum(layer(given.value) * tensor(weights)), [given])
    np.testing.assert_allclose(on_inputs, weights * ((values >= -1) & (values <= 2)), rtol=1e-6)
    on_kernel = np.random.default_rng(0).normal(size=(1, 1, 3, 4)).astype("float32")
    (found,) = gradients(
        lambda: keras.ops.sum(fake_quantized_kernel(kernel.value, Precision()) * tensor(on_kernel)), [kernel]
    )
    np.testing.assert_allclose(found, on_kernel, rtol=1e-6)


@pytest.mark.backends
def test_ranges_follow_the_training_batches() -> None:
    layer = FakeQuantization(Precision(momentum=0.6, calibration_batches=3))
    batches = [(-1.0, 2.0), (-3.0, 4.0), (-2.0, 9.0), (0.0, 1.0)]
    values = np.linspace(-0.5, 0.5, 7).astype("float32")
    low = high = None
    for index, (smallest, largest) in enumerate(batches):
        np.testing.assert_array_equal(to_numpy(detached(layer(tensor(values)))) == values, index < 3 or values == 0)
        layer(tensor([smallest, largest]), training=True)
        share = min(0.6, index / (index + 1))
        low = smallest if low is None else low * share + smallest * (1 - share)
        high = largest if high is None else high * share + largest * (1 - share)
        assert float(to_numpy(layer.minimum)) == pytest.approx(low, rel=1e-6)
        assert float(to_numpy(layer.maximum)) == pytest.approx(high, rel=1e-6)
    before = values_of(layer)
    layer(tensor([-50.0, 50.0]))
    layer.trainable = False
    layer(tensor([-50.0, 50.0]), training=True)
    assert_same_values(before, values_of(layer))
    assert not layer.trainable_variables


# Prepared models


@pytest.mark.backends
@both_grids
@pytest.mark.parametrize("kind", BLOCKS if BACKEND == "tensorflow" else list(BLOCKS)[:1])
def test_at_16_bits_nothing_changes(kind: str, per_channel: bool) -> None:
    """A step is 3e-5 of the largest weight; some roundings of that size in each of three blocks."""
    model = tiny(kind)
    before = values_of(model)
    prepared = calibrated(model, per_channel=per_channel, weight_bits=16, activation_bits=16)
    assert relative_error(infer(model, IMAGES), infer(prepared, IMAGES)) < 5e-4
    assert_same_values(before, values_of(model))
    assert sum(isinstance(layer, QuantizedBlock) for layer in prepared.layers) == 3
    coarse = calibrated(model, per_channel=per_channel, weight_bits=4, activation_bits=4)
    assert relative_error(infer(model, IMAGES), infer(coarse, IMAGES)) > 0.01


@pytest.mark.parametrize("position", SQUEEZE_EXCITE)
def test_a_deployed_model_and_attention_at_16_bits(position: str) -> None:
    model = tiny(squeeze_excite=SQUEEZE_EXCITE[position])
    for form in (model, repvgg.reparameterize(model)):
        prepared = calibrated(form, weight_bits=16, activation_bits=16)
        assert relative_error(infer(model, IMAGES), infer(prepared, IMAGES)) < 5e-4
        # Attention's own convolutions and pooling stay as they were.
        assert {layer.name for layer in prepared.layers if hasattr(layer, "input_range")} == LAYERS


@both_grids
@pytest.mark.parametrize("strides", [1, 2])
def test_a_block_is_a_rounded_convolution(strides: int, per_channel: bool) -> None:
    """In NumPy, from the folded kernel: integers times integers, and the bias in whole units of their product."""
    images = keras.Input((12, 11, 8))
    block = RepVGGBlock(8, strides, groups=2, activation=None, name="block")
    model = trained_like(keras.Model(images, block(images)))
    batch = random_images((2, 12, 11, 8))
    prepared = calibrated(model, batch, per_channel=per_channel)
    linear = block.folded()
    scale, zero = numpy_range(float(batch.min()), float(batch.max()))
    codes = np.clip(np.round(batch / scale) + zero, 0, 255) - zero
    largest = np.abs(linear.kernel).max(axis=(0, 1, 2) if per_channel else None)
    weight_scale = largest / 127
    sums = convolve(codes, np.round(linear.kernel / weight_scale), strides, groups=2)
    expected = (sums + np.round(linear.bias / (scale * weight_scale))) * scale * weight_scale
    # Of 72 weights and inputs in a sum, one may lie between two points and go the other way in float32.
    found = infer(prepared, batch)
    assert np.median(np.abs(found - expected)) < 1e-5 * np.abs(expected).max()
    assert relative_error(expected, found) < 1e-2


@pytest.mark.backends
def test_the_branches_learn_and_statistics_stay() -> None:
    model = tiny()
    prepared = prepare_qat(model, calibration_batches=1)
    block = prepared.get_layer("second").block
    assert len(prepared.trainable_variables) == len(model.trainable_variables)
    assert not [weight.path for weight in prepared.trainable_variables if "range" in weight.path]
    before = {weight.path: to_numpy(weight).copy() for weight in block.weights}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    prepared.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    history = prepared.fit(IMAGES, LABELS, batch_size=8, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for weight in block.weights:
        still = np.array_equal(before[weight.path], to_numpy(weight))
        assert still == ("moving" in weight.path), weight.path


def deployed_with_outliers() -> Any:
    return scale_channels(repvgg.reparameterize(tiny()), largest=100)


def branches_with_outliers() -> Any:
    model = tiny()
    for name in ("first", "second"):
        gamma = model.get_layer(name).conv3x3.norm.gamma
        gamma.assign(to_numpy(gamma) * np.array([40] + 7 * [1]))
    return model


@pytest.mark.parametrize(
    ("make", "weight_bits", "rate"),
    [(deployed_with_outliers, 8, 1e-3), pytest.param(branches_with_outliers, 4, 2e-3, marks=FULL)],
    ids=["deployed", "branches"],
)
def test_training_beats_rounding_alone(make: Callable[[], Any], weight_bits: int, rate: float) -> None:
    """Channels far apart leave a common grid few points for most weights; training finds weights that fit it.

    The network learns its own answers; error is in units of how far the answers to two images differ.
    """
    model = make()
    images, others = random_images((64, 16, 16, 3), seed=1), random_images((64, 16, 16, 3), seed=2)
    expected = infer(model, others)

    def error(candidate: Any) -> float:
        return float(np.mean((expected - infer(candidate, others)) ** 2) / expected.var(axis=0).mean())

    prepared = calibrated(model, images, weight_bits=weight_bits)
    rounded = error(prepared)
    prepared.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, 40)), "mse")
    prepared.fit(images, infer(model, images), batch_size=32, epochs=20, verbose=0)
    deployed, scales = finish_qat(prepared)
    assert error(simulate(deployed, scales)) < rounded / 2


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    prepared = calibrated(tiny(squeeze_excite=SQUEEZE_EXCITE["after"]))
    set_metadata(prepared, class_names=tuple("abcde"))
    repvgg.save_model(prepared, tmp_path / "prepared.keras")
    loaded = repvgg.load_model(tmp_path / "prepared.keras")
    assert_same_values(values_of(prepared), values_of(loaded))
    np.testing.assert_array_equal(infer(prepared, IMAGES), infer(loaded, IMAGES))
    assert get_metadata(finish_qat(loaded)[0]).class_names == tuple("abcde")


def test_nested_and_shared_layers() -> None:
    shared = RepVGGBlock(8, name="shared")
    inner_images = keras.Input((None, None, 3))
    inner = keras.Model(inner_images, RepVGGBlock(8, 2, name="first")(inner_images), name="inner")
    images = keras.Input((None, None, 3))
    x = shared(shared(inner(images)))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="foreign")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    outputs = keras.layers.Dense(3, name="dense")(keras.layers.GlobalAveragePooling2D(name="average")(x))
    model = trained_like(keras.Model(images, outputs))
    prepared = calibrated(model, weight_bits=16, activation_bits=16)
    # A layer that is called twice has one range, the mean of the two.
    assert relative_error(infer(model, IMAGES), infer(prepared, IMAGES)) < 0.05
    assert not prepared.get_layer("norm").trainable
    assert 2 + len(prepared.trainable_variables) == len(model.trainable_variables)
    deployed, scales = finish_qat(prepared)
    assert set(scales.layers) == {"first", "shared", "foreign", "average", "dense"}
    assert relative_error(infer(model, IMAGES), infer(deployed, IMAGES)) < 1e-5


def test_mixed_precision_is_simulated_in_float32() -> None:
    prepared = calibrated(tiny(dtype="mixed_bfloat16"))
    assert {layer.compute_dtype for layer in prepared.layers} == {"float32"}
    assert infer(prepared, IMAGES).dtype == np.float32


# Out again


@pytest.mark.backends
@both_grids
def test_what_is_handed_over(per_channel: bool) -> None:
    prepared, deployed, scales = finished(per_channel=per_channel)
    assert all(type(layer).__module__.startswith("keras.") for layer in all_layers(deployed))
    assert get_metadata(deployed).form == "deploy"
    block = prepared.get_layer("third").block
    kernel, bias = values_of(deployed.get_layer("third"))
    np.testing.assert_array_equal(kernel, block.folded().kernel.astype("float32"))
    np.testing.assert_array_equal(bias, block.folded().bias.astype("float32"))
    assert set(scales.layers) == LAYERS
    grid = scales.layers["third"]
    largest = np.abs(kernel).max(axis=(0, 1, 2)) if per_channel else np.abs(kernel).max(keepdims=True).ravel()
    np.testing.assert_allclose(grid.weight or (), largest / 63, rtol=1e-6)
    assert grid.input_zero_point == 0  # what comes out of a ReLU
    assert 0 < scales.layers["first"].input_zero_point < 255
    assert scales.layers["pool"].weight is None
    assert QuantizationScales.from_json(scales.to_json()) == scales
    # The fold is calculated in float64 here and in float32 there, and what lies between two points may go either way.
    assert relative_error(infer(prepared, IMAGES), infer(simulate(deployed, scales), IMAGES)) < 0.05


# What is refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 1}, "`weight_bits` is a whole number from 2 to 16. Received: 1"),
        ({"activation_bits": 8.0}, "`activation_bits` is a whole number"),
        ({"momentum": 1.0}, "`momentum` is at least 0 and below 1"),
        ({"calibration_batches": 0}, "`calibration_batches` is at least 1"),
    ],
)
def test_numbers_that_make_no_grid(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_qat(tiny(), **options)


def test_models_that_cannot_be_prepared() -> None:
    with pytest.raises(InputError, match="not a built functional or Sequential model"):
        prepare_qat("model.keras")
    images = keras.Input((8, 8, 3))
    with pytest.raises(InputError, match="'plain' has no block, Conv2D or Dense layer"):
        prepare_qat(keras.Model(images, keras.layers.ReLU()(images), name="plain"))
    video = keras.Input((2, 8, 8, 3))
    over_time = keras.layers.TimeDistributed(RepVGGBlock(4), name="frames")(video)
    with pytest.raises(InputError, match=r"'frames' \(TimeDistributed\) wraps a layer"):
        prepare_qat(keras.Model(video, over_time))
    with pytest.raises(InputError, match="was prepared for quantization-aware training before"):
        prepare_qat(prepare_qat(tiny()))


def test_models_that_cannot_be_finished() -> None:
    with pytest.raises(InputError, match="'mine' has no fake-quantized layers"):
        finish_qat(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="mine"))
    with pytest.raises(InputError, match="'first' has seen 0 training batches, and needs 4"):
        finish_qat(prepare_qat(tiny()))


@pytest.mark.parametrize("text", ["", "[]", '{"layers": {"a": {}}}', '{"layers": {}, "colour": 1}'])
def test_texts_that_are_no_scales(text: str) -> None:
    with pytest.raises(FileError, match="not quantization scales"):
        QuantizationScales.from_json(text)
    assert (
        QuantizationScales.from_json(QuantizationScales({"a": LayerScales(0.1, 3)}).to_json()).layers["a"].weight
        is None
    )
