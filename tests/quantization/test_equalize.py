"""Equalization changes ranges and nothing else."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from helpers import infer, random_images, relative_error, small_network, to_numpy, trained_like
from repvgg.base.errors import InputError
from repvgg.quantization import equalize, scale_channels
from repvgg.quantization.equalization_groups import find_equalization_groups, input_ranges, output_ranges
from repvgg.quantization.steps import Steps, kernel_of
from sampling import FULL, sampled

NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({}, 7),
    "grouped": ({"override_groups_map": {2: 2, 3: 4}}, 7),
    # Attention's first convolution reads what the block's convolution makes, and its second one gives no scale away.
    "attention before": ({"squeeze_excite": repvgg.SqueezeExcite("before_activation", 4)}, 14),
    "attention after": ({"squeeze_excite": repvgg.SqueezeExcite("after_activation", 4)}, 14),
}

TOLERANCE = 1e-5
"""One rounding of each weight to float32, over some ten layers."""

MODES = {"weights": None, "noise": random_images((8, 24, 24, 3), seed=3)}


def deployed(name: str) -> Any:
    return repvgg.reparameterize(trained_like(small_network(**NETWORKS[name][0])))


@pytest.mark.parametrize(
    ("name", "mode"),
    sampled(
        itertools.product(NETWORKS, MODES),
        [("grouped", "weights"), ("attention before", "weights")],
    ),
)
def test_the_function_stays_and_scaling_is_undone(name: str, mode: str) -> None:
    model = deployed(name)
    assert len(find_equalization_groups(Steps(model))) == NETWORKS[name][1]
    scaled = scale_channels(model, 100.0)
    before = scaled.get_weights()

    equalized = equalize(scaled, MODES[mode])

    assert all(np.array_equal(a, b) for a, b in zip(before, scaled.get_weights(), strict=True))
    # Odd and even at every stride.
    for size in (32, 43):
        images = random_images((2, size, size, 3))
        wanted = infer(model, images)
        assert relative_error(wanted, infer(scaled, images)) <= TOLERANCE
        assert relative_error(wanted, infer(equalized, images)) <= TOLERANCE

    # Networks that differ by up to 100 times in channel scales become one and the same: as far as balancing weights is
    # carried; and for the noise-optimal scales, where a channel that hardly matters may have one of many scales.
    for first, second in zip(equalize(model, MODES[mode]).weights, equalized.weights, strict=True):
        assert relative_error(first, second) <= (2e-3 if mode == "weights" else 0.25), first.path


def test_scaled_channels_are_far_apart() -> None:
    scaled = scale_channels(deployed("plain"), 100.0)
    for group in find_equalization_groups(Steps(scaled)):
        ranges = output_ranges(kernel_of(group.producer.layer))
        assert ranges.max() / ranges.min() > 20


@pytest.mark.parametrize("name", ["plain", "grouped"])
def test_weights_are_in_balance(name: str) -> None:
    for group in find_equalization_groups(Steps(equalize(scale_channels(deployed(name))))):
        inputs = np.max([input_ranges(consumer, kernel_of(consumer.layer)) for consumer in group.consumers], axis=0)
        np.testing.assert_allclose(output_ranges(kernel_of(group.producer.layer)), inputs, rtol=5e-3)


def test_activations_are_nearer_to_each_other() -> None:
    images = MODES["noise"]
    scaled = scale_channels(deployed("plain"))
    name = "stage2_block0"

    def spread(model: Any) -> float:
        values = to_numpy(keras.Model(model.input, model.get_layer(name).output)(images))
        largest = values.reshape(-1, values.shape[-1]).max(axis=0)
        return float(largest.max() / np.median(largest))

    assert spread(equalize(scaled, images)) < spread(scaled) / 3


def branched(kind: str) -> Any:
    inputs = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")
    x = first(inputs)
    if kind == "output as well":
        return keras.Model(inputs, [keras.layers.Conv2D(4, 1, name="last")(x), x])
    if kind == "sum":
        x = keras.layers.Add()([x, keras.layers.Conv2D(8, 3, padding="same", name="other")(x)])
        x = keras.layers.Conv2D(4, 1, name="last")(x)
    elif kind == "product with itself":
        x = keras.layers.Multiply()([x, x])
        x = keras.layers.Conv2D(4, 1, name="last")(x)
    elif kind == "sigmoid":
        x = keras.layers.Activation("sigmoid")(x)
        x = keras.layers.Conv2D(4, 1, name="last")(x)
    elif kind == "called twice":
        again = keras.layers.Conv2D(8, 1, activation="relu", name="again")
        x = keras.layers.Conv2D(4, 1, activation="sigmoid", name="last")(again(again(x)))
    elif kind == "two readers":
        x = keras.layers.Concatenate()([keras.layers.Conv2D(4, size, padding="same")(x) for size in (1, 3)])
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        ("sum", []),
        ("product with itself", []),
        ("sigmoid", []),
        ("output as well", []),
        ("called twice", []),
        ("two readers", ["first"]),
    ],
)
def test_only_where_it_is_exact(kind: str, groups: list[str]) -> None:
    model = trained_like(branched(kind))
    assert [group.producer.name for group in find_equalization_groups(Steps(model))] == groups
    images = random_images((2, 16, 16, 3))
    outputs = zip(*(keras.tree.flatten(infer(network, images)) for network in (model, equalize(model))), strict=True)
    assert all(relative_error(*pair) <= TOLERANCE for pair in outputs)


@FULL
def test_dead_channels_stay_harmless() -> None:
    """A channel whose weights are all 0, and one that is always 0 on the images, must not become infinite."""
    model = repvgg.reparameterize(trained_like(small_network(num_blocks=[1, 1, 1, 1])))
    layer = model.get_layer("stage1_block0")
    kernel, bias = layer.get_weights()
    kernel[..., 0], bias[0] = 0, 0
    bias[1] = -1e3
    layer.set_weights([kernel, bias])
    for images in MODES.values():
        equalized = equalize(model, images)
        assert all(np.isfinite(weights).all() for weights in equalized.get_weights())
        inputs = random_images((2, 32, 32, 3))
        assert relative_error(infer(model, inputs), infer(equalized, inputs)) <= TOLERANCE


def test_nothing_to_scale() -> None:
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs)))
    with pytest.raises(InputError, match="no two layers in a row"):
        scale_channels(model)
    with pytest.raises(InputError, match=r"`largest` \(=0.5\) must be at least 1"):
        scale_channels(deployed("plain"), 0.5)
