"""Models of other people's making, with layers around the blocks: what is written, and what is refused."""

from pathlib import Path
from typing import Any

import keras
import pytest

import repvgg
from exported import ADAPTING, TOLERANCES, deployed, small, write
from helpers import infer, random_images, relative_error, trained_like
from repvgg.base.errors import InputError
from repvgg.exporting import export
from repvgg.runners import load_runner
from repvgg.targets import TARGETS

for module in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)


@pytest.mark.parametrize("name", ADAPTING)
def test_feature_extractor(name: str, tmp_path: Path) -> None:
    model = repvgg.reparameterize(small(num_classes=None))
    result = write(model, tmp_path, name)
    images = random_images((2, 64, 64, 3))
    expected, received = infer(model, images), load_runner(result.path).outputs(images)
    assert list(received) == ["stage0", "stage1", "stage2", "stage3", "stage4"]
    for stage, values in received.items():
        assert relative_error(expected[stage], values) <= TOLERANCES["float32"]


@pytest.fixture(scope="module")
def larger() -> Any:
    """Foreign layers, a nested model, one head on two inputs, and a padding that two layers use."""
    backbone = repvgg.RepVGGBackbone([1, 1, 1, 1], [0.25] * 4, image_shape=(None, None, 3))
    inputs = keras.Input((64, 64, 3))
    features = backbone(inputs)
    head = keras.Sequential([keras.Input((None, None, 128)), repvgg.RepVGGBlock(16), keras.layers.Dropout(0.5)])
    mixed = keras.layers.Concatenate()([head(features), head(keras.layers.ReLU()(features))])
    mixed = keras.layers.BatchNormalization()(mixed)
    padded = keras.layers.ZeroPadding2D(((1, 2), (3, 0)))(keras.layers.Add()([mixed, mixed, mixed]))
    narrow = keras.layers.Conv2D(32, 3, dilation_rate=2, padding="same", use_bias=False, activation="tanh")(padded)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Multiply()([padded, narrow]))
    model = trained_like(keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x)))
    return repvgg.reparameterize(model)


@pytest.mark.parametrize("name", list(TARGETS))
def test_larger_model_with_shared_and_nested_layers(name: str, larger: Any, tmp_path: Path) -> None:
    result = write(larger, tmp_path, name)
    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(larger, images), load_runner(result.path)(images)) <= TOLERANCES["float32"]


@pytest.mark.backends
@pytest.mark.processor
@pytest.mark.parametrize("name", ADAPTING)
def test_from_every_backend(name: str, tmp_path: Path) -> None:
    """No target needs TensorFlow as Keras's backend, and grouped convolutions are no trouble."""
    model = deployed("grouped")
    result = write(model, tmp_path, name)
    images = random_images((2, 65, 64, 3))
    assert relative_error(infer(model, images), load_runner(result.path)(images)) <= TOLERANCES["float32"]


@pytest.mark.parametrize("name", ADAPTING)
def test_layer_without_a_counterpart(name: str, tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.UpSampling2D()(repvgg.RepVGGBlock(4)(inputs)))
    with pytest.raises(InputError, match=r"'up_sampling2d\w*' \(UpSampling2D\) has no counterpart"):
        write(model, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def refused(layer: Any) -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: keras.layers.Conv2D(2, 3, strides=2, padding="same"), "which pads by the image's size"),
        (lambda: keras.layers.Conv2D(2, 3, activation="gelu"), "uses the activation 'gelu'"),
        (lambda: keras.layers.ReLU(max_value=6), "writes the plain ReLU"),
        (lambda: keras.layers.Dense(2), "writes Dense for vectors"),
        (lambda: keras.layers.Activation("softmax"), "writes softmax for vectors"),
        (lambda: keras.layers.BatchNormalization(axis=1), "normalizes axis 1"),
        (lambda: keras.layers.Conv2D(2, 3, data_format="channels_first"), "is channels_first"),
    ],
)
def test_layers_whose_settings_have_no_counterpart(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(refused(make()), tmp_path / "model.onnx")
