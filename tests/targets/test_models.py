"""Models of other people's making, with layers around the blocks: what is written, and what is refused."""

from pathlib import Path
from typing import Any

import keras
import pytest

import repvgg
from exported import ADAPTING, GENERAL, OPENED, TOLERANCES, deployed, small, write
from helpers import infer, random_images, relative_error, trained_like
from repvgg.base.errors import InputError
from repvgg.exporting import export
from repvgg.runners import load_runner
from repvgg.targets import TARGETS
from repvgg.verification import verify

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


@pytest.mark.parametrize("name", [name for name in OPENED if name != "native"])
def test_larger_model_with_shared_and_nested_layers(name: str, larger: Any, tmp_path: Path) -> None:
    result = write(larger, tmp_path, name)
    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(larger, images), load_runner(result.path)(images)) <= TOLERANCES["float32"]


def test_the_engine_refuses_what_is_not_a_plain_network(larger: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"The engine cannot compile '.+' \(.+\)\. It compiles convolutions .* \.onnx"):
        write(larger, tmp_path, "native")
    assert list(tmp_path.iterdir()) == []


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
    model = keras.Model(inputs, keras.layers.GroupNormalization(2)(repvgg.RepVGGBlock(4)(inputs)))
    with pytest.raises(InputError, match=r"'group_normalization\w*' \(GroupNormalization\) has no counterpart"):
        write(model, tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def refused(layer: Any) -> Any:
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: keras.layers.Conv2D(2, 3, activation="mish"),
            r"uses the activation 'mish', .* It writes: relu, relu6,",
        ),
        (lambda: keras.layers.ReLU(max_value=4), "writes ReLU plain or cut off at 6"),
        (lambda: keras.layers.Dense(2), "writes Dense for vectors"),
        (lambda: keras.layers.Softmax(axis=1), "is a softmax over axis 1, and the channels are the last one"),
        (
            lambda: keras.layers.UpSampling2D(interpolation="bicubic"),
            "the interpolations nearest and bilinear; .* 'bicubic'",
        ),
        (lambda: keras.layers.Resizing(4, 4, antialias=True), "writes Resizing without `antialias`"),
        (lambda: keras.layers.Resizing(4, 4, crop_to_aspect_ratio=True), "without `crop_to_aspect_ratio`"),
        (lambda: keras.layers.Resizing(4, 4, pad_to_aspect_ratio=True), "without `pad_to_aspect_ratio`"),
        (lambda: keras.layers.Conv2DTranspose(2, 3, dilation_rate=2), "Conv2DTranspose without dilation"),
        (lambda: keras.layers.MaxPooling2D(data_format="channels_first"), "is channels_first"),
        (lambda: keras.layers.Normalization(axis=1, mean=[0.0] * 8, variance=[1.0] * 8), "normalizes axis 1"),
        (lambda: keras.layers.Rescaling([[[1.0]], [[2.0]]] * 4), r"has an array of shape \(8, 1, 1\)"),
        (lambda: keras.layers.BatchNormalization(axis=1), "normalizes axis 1"),
        (lambda: keras.layers.Conv2D(2, 3, data_format="channels_first"), "is channels_first"),
    ],
)
def test_layers_whose_settings_have_no_counterpart(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(refused(make()), tmp_path / "model.onnx")


def test_same_padding_of_open_sizes_that_skips_pixels(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.MaxPooling2D(2, strides=3, padding="same", name="skips")(inputs))
    with pytest.raises(InputError, match=r"'skips' pads by 'same' and skips pixels, .* Fix the images' size"):
        export(model, tmp_path / "model.onnx")


def test_tensors_of_different_ranks_are_not_joined(tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    joined = keras.layers.Add(name="odd")([inputs, keras.layers.GlobalAveragePooling2D()(inputs)])
    with pytest.raises(InputError, match=r"'odd' joins tensors of different numbers of axes: \(None, 8, 8, 3\)"):
        export(keras.Model(inputs, joined), tmp_path / "model.onnx")


@pytest.mark.parametrize("name", GENERAL)
def test_outputs_of_models_inside(name: str, tmp_path: Path) -> None:
    """A pyramid whose names are in another order than its levels, and of which some levels are used."""
    backbone = repvgg.RepVGGBackbone([1, 1, 1, 1], [0.125] * 4, image_shape=(None, None, 3))
    levels = {new: backbone.pyramid_outputs[old] for new, old in {"c": "P2", "a": "P3", "b": "P1"}.items()}
    inputs = keras.Input((33, 46, 3))
    pyramid = keras.Model(backbone.inputs, levels, name="pyramid")(inputs)
    coarse = keras.layers.Resizing(*pyramid["b"].shape[1:3])(pyramid["a"])
    mask = repvgg.RepVGGBlock(3, name="block")(keras.layers.Concatenate()([pyramid["b"], coarse]))
    outputs = {"z_mask": keras.layers.Resizing(33, 46)(mask), "a_level": pyramid["c"]}
    model = trained_like(keras.Model(inputs, [outputs, keras.layers.GlobalMaxPooling2D()(mask)]))

    result = write(model, tmp_path, name)

    assert result.converted
    images = random_images((2, 33, 46, 3))
    expected = infer(model, images)
    received = load_runner(result.path).outputs(images)
    assert set(received) == {"output0/z_mask", "output0/a_level", "output1"}
    for output, values in {
        "output1": expected[1],
        **{f"output0/{key}": part for key, part in expected[0].items()},
    }.items():
        assert relative_error(values, received[output]) <= TOLERANCES["float32"], output
    report = verify(model, result.path, images)
    assert report.passed
    assert report.top1_agreement is None


@pytest.mark.parametrize("name", [name for name in GENERAL if "float16" in TARGETS[name].precisions])
def test_normalization_that_was_adapted(name: str, tmp_path: Path) -> None:
    """Keras derives what it calculates with from the weights when it adapts, and a copy has adapted to nothing."""
    normalization = keras.layers.Normalization()
    normalization.adapt(3 + 2 * random_images((4, 8, 8, 3)))
    inputs = keras.Input((24, 24, 3))
    x = keras.layers.GlobalAveragePooling2D()(repvgg.RepVGGBlock(16)(normalization(inputs)))
    model = repvgg.reparameterize(trained_like(keras.Model(inputs, keras.layers.Dense(3)(x))))
    images = 3 + 2 * random_images((2, 24, 24, 3))
    for precision in ("float32", "float16"):
        result = write(model, tmp_path, name, precision, images=images, force=True)
        assert relative_error(infer(model, images), load_runner(result.path)(images)) <= TOLERANCES[precision]
