"""What KerasHub's own tests ask of a vision backbone (`run_vision_backbone_test` of keras-hub 0.32), asked of ours."""

import json
import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from helpers import BACKEND, random_images, values_of
from repvgg.models.backbone import RepVGGBackbone

pytestmark = pytest.mark.backends

SETTINGS: dict[str, Any] = {"num_blocks": [1, 2, 2, 1], "width_multiplier": [0.125] * 4}
LEVELS = {"P1": (32, 32), "P2": (16, 16), "P3": (8, 8), "P4": (4, 4), "P5": (2, 2)}
FORMS: list[dict[str, Any]] = [{}, {"deploy": True}]
every_form = pytest.mark.parametrize("options", FORMS, ids=["training", "deploy"])


@pytest.fixture(params=["channels_last", "channels_first"])
def layout(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both, but for channels_first on TensorFlow's CPU, which KerasHub leaves out too: stock layers have none there."""
    layout: str = request.param
    if layout == "channels_first" and BACKEND == "tensorflow":
        pytest.skip("TensorFlow's CPU has no channels_first convolution.")
    before = keras.config.image_data_format()
    keras.config.set_image_data_format(layout)
    yield layout
    keras.config.set_image_data_format(before)


def arranged(images: Any, layout: str) -> Any:
    return np.ascontiguousarray(np.moveaxis(images, -1, 1)) if layout == "channels_first" else images


@every_form
def test_configurations_come_back(options: dict[str, Any], layout: str) -> None:
    shape = (None, None, 3) if layout == "channels_last" else (3, None, None)
    backbone = RepVGGBackbone(**SETTINGS, **options, image_shape=shape)
    config = backbone.get_config()
    assert RepVGGBackbone.from_config(config).get_config() == config
    json.dumps(config, sort_keys=True)
    serialized = json.dumps(keras.saving.serialize_keras_object(backbone), sort_keys=True)
    revived = keras.saving.deserialize_keras_object(json.loads(serialized))
    assert revived.get_config() == config
    assert set(dir(revived)) == set(dir(backbone))


@every_form
def test_calls_predictions_and_pyramids(options: dict[str, Any], layout: str) -> None:
    images = arranged(random_images((2, 64, 64, 3)), layout)
    image_shape = tuple(None if size == 64 else size for size in images.shape[1:])
    backbone = RepVGGBackbone(**SETTINGS, **options, image_shape=image_shape)
    shape = arranged(np.zeros((2, 2, 2, 64)), layout).shape
    # A NumPy array, as KerasHub passes it.
    assert tuple(backbone(images).shape) == shape
    assert backbone.token_embedding is None
    assert backbone.predict(images, verbose=0).shape == shape
    assert backbone.compute_output_spec(images).shape == shape
    pyramid = keras.Model(backbone.inputs, backbone.pyramid_outputs)([images])
    assert isinstance(pyramid, dict)
    rows = 1 if layout == "channels_last" else 2
    sides = {level: tuple(output.shape[rows : rows + 2]) for level, output in pyramid.items()}
    assert sides == LEVELS


def test_the_name_comes_from_the_class() -> None:
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", RepVGGBackbone.__name__)
    name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
    assert name == "rep_vgg_backbone"
    assert re.match(name, RepVGGBackbone(**SETTINGS).name)


@every_form
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_precision(policy: str, options: dict[str, Any]) -> None:
    if BACKEND == "torch":
        pytest.skip("KerasHub tests no 16-bit precision on PyTorch's CPU.")
    wanted = keras.dtype_policies.get(policy)
    backbone = RepVGGBackbone(**SETTINGS, **options, dtype=wanted)
    images = random_images((2, 64, 64, 3))
    for output in (backbone(images), backbone.compute_output_spec(images)):
        assert keras.backend.standardize_dtype(output.dtype) == wanted.compute_dtype
    assert {str(weight.dtype) for weight in backbone.weights} == {wanted.variable_dtype}
    for layer in backbone.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            assert (layer.compute_dtype, layer.variable_dtype) == (wanted.compute_dtype, wanted.variable_dtype)


@every_form
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantization_policies(mode: str, options: dict[str, Any]) -> None:
    """There is no layer that Keras quantizes, and a map of policies is carried all the same."""
    policies = keras.dtype_policies.DTypePolicyMap("float32")
    policies["dense"] = keras.dtype_policies.get(f"{mode}_from_float32")
    backbone = RepVGGBackbone(**SETTINGS, **options, dtype=policies)
    backbone(random_images((2, 64, 64, 3)))
    config = backbone.get_config()
    revived = RepVGGBackbone.from_config(config)
    assert revived.get_config() == config
    revived.set_weights(values_of(backbone))
