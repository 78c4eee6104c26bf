"""Branches merged in training: the same outputs, gradients and running statistics as one by one."""

from typing import Any

import keras
import numpy as np
import pytest

from helpers import random_images, relative_error, values_of
from repvgg.blocks import RepVGGBlock, merging, ops

tf = pytest.importorskip("tensorflow")

TOLERANCES = {"float64": 1e-13, "float32": 5e-6}
"""Some hundred roundings; float32 because a covariance is the difference of two larger numbers."""

# Input channels, filters, strides, pixels a side.
BLOCKS = [(3, 8, 2, 12), (3, 8, 2, 13), (4, 4, 1, 9), (3, 8, 1, 11)]
FORMS = ["even", "odd", "with identity", "stride 1"]


def trained(
    merge: bool, shape: tuple[int, int, int, int], dtype: str, monkeypatch: pytest.MonkeyPatch, **frozen: bool
) -> list[np.ndarray]:
    """What a training call gives: outputs, all gradients, all weights after it."""
    channels, filters, strides, side = shape
    monkeypatch.setattr(ops, "merging_pays", lambda: merge)
    keras.utils.set_random_seed(1)
    block = RepVGGBlock(filters, strides, dtype=dtype)
    images = tf.constant(random_images((4, side, side, channels)) + 0.3, dtype)
    block(images)
    generator = np.random.default_rng(2)
    for variable in block.weights:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.7, 1.5, variable.shape))
        elif variable.path.endswith(("beta", "moving_mean")):
            variable.assign(generator.normal(0, 0.2, variable.shape))
    if frozen:
        block.conv1x1.norm.trainable = False
    inputs = [images, *(variable.value for variable in block.trainable_variables)]
    with tf.GradientTape() as tape:
        tape.watch(images)
        outputs = block(images, training=True)
        loss = tf.reduce_sum(tf.sin(outputs * 1.3))
    return [outputs.numpy(), *(gradient.numpy() for gradient in tape.gradient(loss, inputs)), *values_of(block)]


@pytest.fixture
def merged_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each merged convolution stood for."""
    calls: list[int] = []
    real = merging._merged

    def counting(layers: Any, *arguments: Any) -> Any:
        calls.append(len(layers))
        return real(layers, *arguments)

    monkeypatch.setattr(merging, "_merged", counting)
    return calls


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("shape", "layers"), [*zip(BLOCKS, (2, 2, 3, 2), strict=True)], ids=FORMS)
def test_same_as_one_by_one(
    shape: tuple[int, int, int, int],
    layers: int,
    dtype: str,
    merged_calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = trained(False, shape, dtype, monkeypatch)
    assert merged_calls == []
    found = trained(True, shape, dtype, monkeypatch)
    assert merged_calls == [layers]
    for one, other in zip(expected, found, strict=True):
        assert relative_error(one, other) < TOLERANCES[dtype]


def test_a_frozen_normalization_keeps_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, found = (trained(merge, BLOCKS[2], "float64", monkeypatch, frozen=True) for merge in (False, True))
    for one, other in zip(expected, found, strict=True):
        assert relative_error(one, other) < TOLERANCES["float64"]


def test_a_channel_that_never_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Its variance is 0, and by way of the covariance may come out below.
    images = random_images((4, 9, 9, 4))
    images[..., 0] = 0.7
    outputs = []
    for merge in (False, True):
        monkeypatch.setattr(ops, "merging_pays", lambda merge=merge: merge)
        keras.utils.set_random_seed(1)
        block = RepVGGBlock(4)
        outputs.append(keras.ops.convert_to_numpy(block(images, training=True)))
    # Such a channel is scaled by 1 / sqrt(epsilon), 316, and so is its rounding.
    assert relative_error(*outputs) < 1e-3
    assert float(block.identity.moving_variance[0]) >= 0


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"groups": 2}, (4, 9, 9, 4)),
        ({"dilation_rate": 2}, (4, 9, 9, 3)),
        ({"data_format": "channels_first"}, (4, 3, 9, 9)),
        ({"dtype": "mixed_bfloat16"}, (4, 9, 9, 3)),
        ({}, (1, 3, 3, 3)),
        ({}, (4, 9, 9, 8)),
    ],
    ids=["groups", "dilation", "channels first", "16 bits", "few positions", "many channels"],
)
def test_where_branches_stay_apart(
    settings: dict[str, Any], shape: tuple[int, ...], merged_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "merging_pays", lambda: True)
    RepVGGBlock(8, **settings)(random_images(shape), training=True)
    assert merged_calls == []


def test_nothing_is_merged_in_inference(merged_calls: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "merging_pays", lambda: True)
    RepVGGBlock(8)(random_images((4, 9, 9, 3)))
    assert merged_calls == []
