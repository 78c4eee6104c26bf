"""The feature extractor, by the conventions of feature pyramids."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import assert_same_values, infer, random_images, relative_error, small_network, trained_like, values_of
from repvgg.base.errors import ConversionError, InputError
from repvgg.blocks import ops
from repvgg.conversion import reparameterize
from repvgg.models.backbone import RepVGGBackbone

LEVELS = ["P1", "P2", "P3", "P4", "P5"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"deploy": True, "image_shape": (64, 64, 3), "dtype": "mixed_bfloat16", "name": "features"},
    {"squeeze_excite": {"position": "before_activation", "reduction": 4}, "override_groups_map": {1: 2, 3: 4}},
    {"data_format": "channels_first", "image_shape": (4, None, None)},
]
every_option = pytest.mark.parametrize(
    "options", OPTIONS, ids=["plain", "deploy", "attention_groups", "channels_first"]
)


def make_backbone(**options: Any) -> Any:
    return RepVGGBackbone([1, 2, 2, 1], [0.125] * 4, **options)


def images_for(backbone: Any, seed: int = 1) -> Any:
    return random_images((2, *(size or 64 for size in backbone.image_shape)), seed)


@pytest.mark.parametrize("deploy", [False, pytest.param(True, marks=pytest.mark.backends)])
@pytest.mark.parametrize("size", [(64, 96), (75, 33)])
def test_level_n_is_2_to_the_n_smaller(size: tuple[int, int], deploy: bool) -> None:
    backbone = make_backbone(deploy=deploy)
    assert list(backbone.pyramid_outputs) == LEVELS
    pyramid = infer(keras.Model(backbone.inputs, backbone.pyramid_outputs), random_images((1, *size, 3)))
    for level, channels in enumerate((8, 8, 16, 32, 64), start=1):
        sides = [-(-side // 2**level) for side in size]
        assert pyramid[f"P{level}"].shape == (1, *sides, channels)
    np.testing.assert_array_equal(pyramid["P5"], infer(backbone, random_images((1, *size, 3))))


def test_levels_are_the_classifiers_stages() -> None:
    backbone, features = make_backbone(), small_network(num_classes=None)
    trained_like(backbone)
    features.set_weights(values_of(backbone))
    images = random_images((1, 64, 64, 3))
    pyramid = infer(keras.Model(backbone.inputs, backbone.pyramid_outputs), images)
    for stage, array in enumerate(infer(features, images).values()):
        np.testing.assert_array_equal(pyramid[f"P{stage + 1}"], array)


@pytest.mark.backends
@pytest.mark.processor
def test_channels_first_is_the_same_network() -> None:
    last = trained_like(make_backbone())
    first = make_backbone(data_format="channels_first", image_shape=(3, None, None))
    first.set_weights(values_of(last))
    images = random_images((2, 40, 33, 3))
    turned = infer(first, np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    assert relative_error(infer(last, images), turned.transpose(0, 2, 3, 1)) < 1e-5


def test_the_image_shape() -> None:
    assert make_backbone().image_shape == (None, None, 3)
    backbone = make_backbone(image_shape=(64, 32, 1))
    assert backbone.image_shape == (64, 32, 1)
    assert backbone.input_shape == (None, 64, 32, 1)
    with pytest.raises(InputError, match="`input_shape` needs a number of channels"):
        make_backbone(image_shape=(64, 64, None))


@pytest.mark.processor
@every_option
def test_config_round_trip(options: dict[str, Any]) -> None:
    backbone = trained_like(make_backbone(**options))
    config = backbone.get_config()
    again = RepVGGBackbone.from_config(json.loads(json.dumps(config)))
    assert again.get_config() == config
    for name in ("deploy", "image_shape", "data_format", "name"):
        if name in options:
            assert getattr(again, name) == options[name]
    again.set_weights(values_of(backbone))
    images = images_for(backbone)
    np.testing.assert_array_equal(infer(backbone, images), infer(again, images))


@every_option
def test_saved_and_loaded(tmp_path: Path, options: dict[str, Any]) -> None:
    backbone = trained_like(make_backbone(**options))
    backbone.save(tmp_path / "backbone.keras")
    loaded = keras.saving.load_model(tmp_path / "backbone.keras")
    assert isinstance(loaded, RepVGGBackbone)
    assert list(loaded.pyramid_outputs) == LEVELS
    assert_same_values(values_of(backbone), values_of(loaded))
    images = images_for(backbone)
    np.testing.assert_array_equal(infer(backbone, images), infer(loaded, images))


@pytest.mark.backends
def test_dtype_policies() -> None:
    backbone = make_backbone(dtype="mixed_bfloat16")
    assert backbone.dtype_policy.name == "mixed_bfloat16"
    assert {str(weight.dtype) for weight in backbone.weights} == {"float32"}
    assert keras.backend.standardize_dtype(backbone.output.dtype) == "bfloat16"
    previous = keras.config.dtype_policy()
    # Not float64: JAX has none unless it is told so before it starts.
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert make_backbone().dtype_policy.name == "mixed_float16"
        assert keras.backend.standardize_dtype(make_backbone().output.dtype) == "float16"
    finally:
        keras.config.set_dtype_policy(previous)


def test_a_frozen_backbone_stays_frozen_in_its_file(tmp_path: Path) -> None:
    backbone = make_backbone()
    backbone.trainable = False
    backbone.save(tmp_path / "backbone.keras")
    assert keras.saving.load_model(tmp_path / "backbone.keras").trainable_variables == []


@pytest.mark.backends
@pytest.mark.processor
@pytest.mark.parametrize("options", OPTIONS[2:], ids=["attention_groups", "channels_first"])
def test_a_converted_backbone(options: dict[str, Any]) -> None:
    backbone = trained_like(make_backbone(**options))
    if "data_format" in options and not ops.stock_layers_run_channels_first():
        with pytest.raises(ConversionError, match=r"has its channels first.* unset it, or set KERAS_BACKEND"):
            reparameterize(backbone)
        return
    deployed = reparameterize(backbone)
    assert all(type(layer).__module__.startswith("keras.") for layer in deployed.layers)
    images = images_for(backbone)
    assert relative_error(infer(backbone, images), infer(deployed, images)) < 1e-5
