"""Grids, and weights that are rounded so that errors cancel."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from helpers import infer, random_images, small_network, to_numpy, trained_like, values_of
from repvgg.quantization.correction import corrected
from repvgg.quantization.gptq import RIDGE, least_squares_weights
from repvgg.quantization.moments import input_moments
from repvgg.quantization.ranges import Limits, input_limits, rounded_input
from repvgg.quantization.rounding import rounded_activations, rounded_weights, signal_to_noise, weight_scales
from repvgg.quantization.schemes import FALLBACK, FORMER_NAMES, SCHEMES, Scheme, get_scheme
from repvgg.quantization.steps import Step, Steps, apply, copied, kernel_of, linear_part
from sampling import sampled

pytestmark = pytest.mark.processor

IMAGES = 1 + random_images((64, 24, 24, 3), seed=5)
"""Not around 0, for there errors of weights have no mean."""


@pytest.mark.parametrize("per_channel", [True, False])
def test_grid_of_weights(per_channel: bool) -> None:
    kernel = random_images((3, 3, 4, 6)).astype(np.float64) * np.arange(6)
    rounded = rounded_weights(kernel, per_channel=per_channel)
    scales = weight_scales(kernel, per_channel=per_channel)
    assert scales.shape == ((1, 1, 1, 6) if per_channel else (1, 1, 1, 1))
    codes = rounded / scales
    np.testing.assert_allclose(codes, codes.round(), atol=1e-9)
    assert np.abs(codes).max() == pytest.approx(127)
    assert (np.abs(rounded - kernel) <= scales / 2 * (1 + 1e-9)).all()
    # What lies on the grid stays there, which is why preparation can be left to any target's quantizer afterwards.
    np.testing.assert_allclose(rounded_weights(rounded, per_channel=per_channel), rounded, rtol=1e-12)
    assert not rounded[..., 0].any()


def test_grid_of_activations() -> None:
    values = np.linspace(-1, 3, 1001)
    rounded = rounded_activations(values, -0.5, 2.0)
    assert len(np.unique(rounded)) == 256
    assert 0.0 in rounded
    inside = (values >= -0.5) & (values <= 2)
    assert np.abs(rounded - values)[inside].max() <= 2.5 / 255 * 0.51
    assert rounded.min() == pytest.approx(-0.5, abs=0.01)
    assert rounded.max() == pytest.approx(2.0, abs=0.01)
    assert not rounded_activations(values, 0.0, 0.0).any()


def test_signal_to_noise() -> None:
    signal = random_images((100,))
    assert signal_to_noise(signal, signal) == np.inf
    assert signal_to_noise(signal, 1.1 * signal) == pytest.approx(20, abs=1e-3)
    assert signal_to_noise(0 * signal, signal) == -np.inf


def networks() -> dict[str, Any]:
    return {"plain": {}, "grouped": {"override_groups_map": {2: 2, 3: 4}}}


def coarse(model: Any, per_channel: bool) -> Any:
    """Weights to the nearest point and nothing else."""
    rounded = copied(model)
    for step in Steps(rounded).weighted:
        step.layer.kernel.assign(rounded_weights(kernel_of(step.layer), per_channel=per_channel))
    return rounded


def channel_means(model: Any, limits: Limits | None = None) -> dict[str, np.ndarray]:
    """With `limits`, of the network with inputs in eight bits."""
    found = {}

    def call(step: Any, inputs: list[Any]) -> Any:
        if not step.weighted:
            return apply(step, inputs)
        outputs = linear_part(step, rounded_input(step, inputs, limits) if limits else inputs)
        found[step.name] = to_numpy(outputs).reshape(-1, outputs.shape[-1]).mean(axis=0, dtype=np.float64)
        return step.layer.activation(outputs)

    for _ in Steps(model).run(IMAGES, call):
        pass
    return found


def in_eight_bits(model: Any, images: np.ndarray, limits: Limits) -> np.ndarray:
    """The network's answers with the input of each layer rounded."""

    def call(step: Any, inputs: list[Any]) -> Any:
        return apply(step, rounded_input(step, inputs, limits) if step.weighted else inputs)

    outputs = [tensor for _, tensor in Steps(model).run(images, call)]
    return to_numpy(outputs[-1])


@pytest.mark.parametrize("name", ["plain", "grouped"])
def test_bias_correction_takes_the_mean_error_away(name: str) -> None:
    model = repvgg.reparameterize(trained_like(small_network(**networks()[name])))
    repaired = corrected(model, IMAGES, per_channel=False)
    limits = input_limits(model, IMAGES)
    wanted = channel_means(model)
    before, after = (channel_means(network, limits) for network in (coarse(model, False), repaired))
    for layer, means in wanted.items():
        error, left = np.abs(before[layer] - means).max(), np.abs(after[layer] - means).max()
        assert left < 0.01 * error, layer
    # The weights are those of rounding to the nearest point.
    np.testing.assert_array_equal(
        to_numpy(repaired.get_layer("stage2_block1").kernel),
        to_numpy(coarse(model, False).get_layer("stage2_block1").kernel),
    )


@pytest.mark.parametrize(
    ("name", "per_channel"),
    sampled(itertools.product(["plain", "grouped"], [True, False]), [("plain", False), ("grouped", True)]),
)
def test_gptq_weights_lie_on_the_grid_and_come_closer(name: str, per_channel: bool) -> None:
    model = repvgg.reparameterize(trained_like(small_network(**networks()[name])))
    reconstructed = corrected(model, IMAGES, per_channel=per_channel, gptq=True)
    for step in Steps(reconstructed).weighted:
        kernel = kernel_of(step.layer)
        again = rounded_weights(kernel, per_channel=per_channel)
        # The same grid, found again from the largest weight; float32 stores neither exactly.
        np.testing.assert_allclose(again, kernel, rtol=0, atol=1e-5 * np.abs(kernel).max())
        original = kernel_of(model.get_layer(step.layer.name))
        assert np.abs(kernel - original).max() > 0

    # Images that were not looked at: more than 5 dB, most of a bit, better than rounding to the nearest point.
    others = 1 + random_images((32, 24, 24, 3), seed=6)
    limits = input_limits(model, IMAGES)
    wanted = infer(model, others)
    nearest, closer = (
        in_eight_bits(network, others, limits) for network in (coarse(model, per_channel), reconstructed)
    )
    assert signal_to_noise(wanted, closer) > signal_to_noise(wanted, nearest) + 5


def disturbed(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What a layer receives and what it should: noise that goes with the values, and a shift. (32, 20, 20, 4)"""
    generator = np.random.default_rng(seed)
    wanted = (1 + generator.normal(size=(32, 20, 20, 4))).astype("float32")
    received = (0.3 + wanted + 0.5 * wanted[..., ::-1] * generator.uniform(size=wanted.shape)).astype("float32")
    return received, wanted


@pytest.mark.parametrize("groups", [1, 2])
def test_reconstructed_weights_are_those_of_least_squares(groups: int) -> None:
    """Inputs of one group know nothing of the other's."""
    layer = keras.layers.Conv2D(6, 3, strides=2, groups=groups)
    layer.build((None, 20, 20, 4))
    step = Step("layer", layer, ("images",))
    received, wanted = disturbed(seed=3)
    kernel = kernel_of(layer)
    moments = input_moments(step, keras.ops.convert_to_tensor(received), keras.ops.convert_to_tensor(wanted))
    found = least_squares_weights(step, kernel, moments)

    windows = [
        np.lib.stride_tricks.sliding_window_view(one, (3, 3), axis=(1, 2))[:, ::2, ::2] for one in (received, wanted)
    ]
    inputs, outputs = 4 // groups, 6 // groups
    for group in range(groups):
        channels, filters = slice(group * inputs, (group + 1) * inputs), slice(group * outputs, (group + 1) * outputs)
        x, y = (one[:, :, :, channels].transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * inputs) for one in windows)
        before = kernel[..., filters].reshape(9 * inputs, outputs)
        ridge = RIDGE * (x**2).mean(axis=0).mean() * len(x)
        rows = np.concatenate([x, np.sqrt(ridge) * np.eye(9 * inputs)])
        aims = np.concatenate([y @ before, np.sqrt(ridge) * before])
        expected = np.linalg.lstsq(rows, aims, rcond=None)[0]
        # Products are added up in float32.
        np.testing.assert_allclose(found[..., filters].reshape(expected.shape), expected, rtol=0, atol=1e-4)
    assert np.abs(found - kernel).max() > 0.01

    # On inputs that were not looked at, the layer's outputs come closer to what they should be.
    received, wanted = disturbed(seed=4)
    outputs = to_numpy(layer(wanted))
    before = signal_to_noise(outputs, to_numpy(layer(received)))
    layer.kernel.assign(found.astype("float32"))
    assert signal_to_noise(outputs, to_numpy(layer(received))) > before + 3


def test_layers_that_stay_in_float() -> None:
    """Neither their weights nor what they read is rounded, so a network of nothing else stays what it was."""
    model = repvgg.reparameterize(trained_like(small_network()))
    names = [step.name for step in Steps(model).weighted]
    for gptq in (True, False):
        repaired = corrected(model, IMAGES, per_channel=True, gptq=gptq, float_layers=names)
        for before, after in zip(values_of(model), values_of(repaired), strict=True):
            # Means of float32 outputs are taken and given back layer after layer, and weights are solved for, which
            # multiplies roundings of float32 by how alike the inputs are: 4e-5 was seen without oneDNN.
            np.testing.assert_allclose(after, before, rtol=1e-5, atol=2e-4 * np.abs(before).max())
    kept = corrected(model, IMAGES, per_channel=True, float_layers=names[2:3])
    changed = [
        name for name in names if not np.array_equal(kernel_of(model.get_layer(name)), kernel_of(kept.get_layer(name)))
    ]
    assert changed == [*names[:2], *names[3:]]


def test_activations_are_left_as_they_were() -> None:
    """`linear_part` takes an activation off for one call only."""
    model = repvgg.reparameterize(small_network())
    step = Steps(model).weighted[0]
    linear_part(step, [keras.ops.convert_to_tensor(IMAGES[:1])])
    assert keras.activations.serialize(step.layer.activation) == "relu"


@pytest.mark.parametrize(("former", "name"), FORMER_NAMES.items())
def test_former_names_stay_valid(former: str, name: str) -> None:
    """They are in people's scripts, and in no list of names."""
    assert former not in SCHEMES
    if name != FALLBACK:  # which tests of the search ask for by both names
        assert get_scheme(former) is SCHEMES[name]
    assert Scheme(rounding="compensated") == Scheme(rounding="gptq")
