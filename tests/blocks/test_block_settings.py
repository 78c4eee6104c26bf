"""What a block is told and keeps, and arguments that make none."""

import json
from typing import Any

import keras
import numpy as np
import pytest
from making import make_block, norms_of

from helpers import (
    SQUEEZE_EXCITE,
    infer,
    random_images,
    values_of,
)
from repvgg.base.errors import InputError
from repvgg.blocks import BLOCKS, RepVGGBlock

every_kind = pytest.mark.parametrize("kind", BLOCKS)


# Configuration


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2, "groups": 4, "deploy": True},
        {"dilation_rate": 2, "activation": "silu", "data_format": "channels_first"},
        {"squeeze_excite": SQUEEZE_EXCITE["after"], "dtype": "mixed_bfloat16", "momentum": 0.99, "epsilon": 1e-3},
        {"kernel_initializer": "he_normal", "kernel_regularizer": keras.regularizers.L2(1e-4), "activation": None},
    ],
)
@every_kind
def test_config_round_trip(kind: str, options: dict[str, Any]) -> None:
    block = BLOCKS[kind](8, name="some", **options)
    text = json.dumps(keras.saving.serialize_keras_object(block))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(block)
    assert again.get_config() == block.get_config()
    for name, value in options.items():
        if name in ("strides", "groups", "dilation_rate", "deploy", "data_format", "momentum", "epsilon"):
            assert getattr(again, name) == value
    shape = (1, 8, 6, 6) if block.data_format == "channels_first" else (1, 6, 6, 8)
    again.build(shape)
    block.build(shape)
    again.set_weights(values_of(block))
    images = random_images(shape)
    np.testing.assert_array_equal(infer(block, images), infer(again, images))


@pytest.mark.parametrize("name", ["momentum", "epsilon"])
def test_torchs_constants_are_the_defaults(name: str) -> None:
    block = make_block("RepVGGBlock", 8)
    expected = {"momentum": 0.9, "epsilon": 1e-5}[name]
    assert {getattr(norm, name) for norm in norms_of(block)} == {expected}


def test_initializer_and_regularizer_reach_every_kernel() -> None:
    block = RepVGGBlock(8, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1.0))
    block.build((None, 8, 8, 8))
    assert float(sum(block.losses)) == pytest.approx(9 * 64 + 64)


def test_regularization_ends_with_the_training_form() -> None:
    block = RepVGGBlock(8, kernel_regularizer="l2")
    block.build((None, 8, 8, 8))
    block.switch_to_deploy()
    assert block.losses == []


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "`filters` must be a whole number of at least 1. Received: 0"),
        ({"filters": 8.0}, "`filters` must be a whole number"),
        ({"filters": 8, "strides": 0}, "`strides` must be a whole number of at least 1"),
        ({"filters": 8, "strides": (2, 2)}, r"`strides` must be a whole number .* Received: \(2, 2\)"),
        ({"filters": 8, "groups": -1}, "`groups` must be a whole number of at least 1. Received: -1"),
        ({"filters": 8, "groups": 3}, r"`filters` \(=8\) must be divisible by `groups` \(=3\)"),
        ({"filters": 8, "dilation_rate": 0}, "`dilation_rate` must be a whole number"),
        ({"filters": 8, "strides": 2, "dilation_rate": 2}, r"`strides` \(=2\) and `dilation_rate` \(=2\) cannot both"),
        ({"filters": 8, "data_format": "NHWC"}, "data_format.*NHWC"),
        ({"filters": 8, "squeeze_excite": {"position": "nowhere", "reduction": 4}}, "nowhere"),
    ],
)
@every_kind
def test_arguments_that_make_no_block(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BLOCKS[kind](**options)


@every_kind
def test_inputs_that_fit_no_block(kind: str) -> None:
    with pytest.raises(InputError, match=r"'odd': input channels \(=6\) must be divisible by groups \(=4\)"):
        BLOCKS[kind](8, groups=4, name="odd").build((None, 8, 8, 6))
    with pytest.raises(InputError, match=r"'flat' needs a batch of images with 4 axes .* with 2: \(None, 8\)"):
        BLOCKS[kind](8, name="flat").build((None, 8))
    with pytest.raises(InputError, match="'vague' needs a known number of channels"):
        BLOCKS[kind](8, name="vague").build((None, 8, 8, None))


@pytest.mark.backends
@pytest.mark.parametrize("channels", [2, 8, 1])
@pytest.mark.parametrize("strides", [1, 2])
def test_other_channels_than_built_for(strides: int, channels: int) -> None:
    """TensorFlow would take 8 channels where the kernel has 4 for a convolution of 2 groups, and calculate it."""
    block = make_block("RepVGGBlock", 8, strides, channels=4, name="built")
    with pytest.raises(ValueError, match=rf"(?s)built.*4.*{channels}"):
        block(keras.ops.convert_to_tensor(random_images((1, 8, 8, channels))))
