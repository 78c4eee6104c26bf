"""Networks that calculate in 16 bits, stored and proved as the float32 networks that their weights are."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import assert_same_values, infer, random_images, relative_error, small_network, trained_like, values_of
from repvgg.base.errors import ConversionError, InputError
from repvgg.blocks import RepVGGBlock
from repvgg.checkpoints import save_checkpoint
from repvgg.conversion import reparameterize
from repvgg.exporting import export
from repvgg.models.full_precision import in_full_precision
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.saving import load_model, save_model
from repvgg.quantization.qat import prepare_qat
from repvgg.runners import load_runner
from repvgg.verification import verify
from sampling import sampled

POLICIES = ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"]
LIMIT = 1e-6
"""Of the largest logit: what the two forms of a float32 network differ by."""


def assert_in_float32(model: Any) -> None:
    assert {layer.compute_dtype for layer in all_layers(model)} == {"float32"}
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}


@pytest.mark.backends
@pytest.mark.parametrize("policy", sampled(POLICIES, ["mixed_bfloat16", "float16"]))
def test_converted_in_float32(policy: str, tmp_path: Path) -> None:
    model = trained_like(small_network(dtype=policy))
    set_metadata(model, class_names=tuple("abcde"))
    before = values_of(model)
    deployed = reparameterize(model)
    assert_in_float32(deployed)
    # The same weights in float32 give the same kernels, bit for bit: nothing is rounded to 16 bits on the way.
    wide = small_network()
    wide.set_weights([weight.astype(np.float32) for weight in before])
    assert_same_values(values_of(reparameterize(wide)), values_of(deployed))
    report = verify(model, deployed)
    assert report.passed
    assert report.max_relative_error < LIMIT
    # The original is as it was, and both forms know what they were.
    assert model.get_layer("stage0").dtype_policy.name == policy
    assert_same_values(before, values_of(model))
    assert get_metadata(deployed).class_names == tuple("abcde")

    kept = load_model(save_model(deployed, tmp_path / "deploy.keras"))
    assert_in_float32(kept)
    assert verify(model, kept).max_relative_error < LIMIT


@pytest.mark.parametrize(
    ("policy", "deploy"),
    sampled(
        itertools.product(["mixed_bfloat16", "float16"], [False, True]), [("mixed_bfloat16", False), ("float16", True)]
    ),
)
def test_exported_in_float32(policy: str, deploy: bool, tmp_path: Path) -> None:
    """From either form: the second is what older versions made of the first."""
    model = trained_like(small_network(dtype=policy, deploy=deploy, input_shape=(32, 32, 3)))
    images = random_images((2, 32, 32, 3))
    expected = infer(in_full_precision(model), images)
    for path in (tmp_path / "model.onnx", tmp_path / "model.keras"):
        result = export(model, path, path.suffix[1:])
        assert result.report.max_relative_error < 1e-5
        assert relative_error(expected, load_runner(path)(images)) < 1e-5


def composite() -> Any:
    """A block in a layer of its own, which passes no precision on, in a nested model, under a wrapper and alone."""

    @keras.saving.register_keras_serializable(package="test_full_precision")
    class Projection(keras.layers.Layer):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.inner = keras.layers.Dense(6)

        def build(self, input_shape: Any) -> None:
            self.inner.build(input_shape)

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    inner_images = keras.Input((16, 16, 8))
    inner = keras.Model(inner_images, RepVGGBlock(8, name="nested")(inner_images), name="inner")
    images = keras.Input((3, 16, 16, 8))
    x = keras.layers.TimeDistributed(inner, name="frames")(images)
    x = keras.layers.TimeDistributed(RepVGGBlock(8, 2, name="wrapped"), name="each")(x)
    x = keras.layers.GlobalAveragePooling3D()(x)
    return keras.Model(images, Projection(name="projection")(x))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_whatever_is_around_the_blocks(policy: str) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = trained_like(composite())
        deployed = reparameterize(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert_in_float32(deployed)
    images = random_images((2, 3, 16, 16, 8))
    wide = in_full_precision(model)
    assert_in_float32(wide)
    assert relative_error(infer(wide, images), infer(deployed, images)) < LIMIT
    # What 16 bits lose is there to be seen, or this would prove nothing.
    assert relative_error(infer(wide, images), infer(model, images).astype(np.float32)) > 1e-4


def test_a_sequential_model() -> None:
    model = keras.Sequential(
        [keras.Input((16, 16, 3)), RepVGGBlock(8, 2, dtype="mixed_bfloat16"), keras.layers.GlobalAveragePooling2D()]
    )
    trained_like(model)
    deployed = reparameterize(model)
    assert_in_float32(deployed)
    assert verify(model, deployed).max_relative_error < LIMIT


def test_what_is_in_full_precision_stays_what_it_is() -> None:
    for model in (small_network(), small_network(dtype="float64")):
        assert in_full_precision(model) is model


# Weights that are none of ours


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_layers_that_keras_quantized_are_named(mode: str, tmp_path: Path) -> None:
    training, deploy = small_network(name="mine"), small_network(deploy=True, name="mine", input_shape=(32, 32, 3))
    for model in (training, deploy):
        model.get_layer("classifier").quantize(mode)
    message = rf"Layer 'classifier' \(Dense\) of 'mine' was quantized by Keras \({mode}\)"
    with pytest.raises(ConversionError, match=message):
        reparameterize(training)
    for model in (training, deploy):
        with pytest.raises(InputError, match=message):
            export(model, tmp_path / "model.onnx")
        with pytest.raises(InputError, match=message):
            save_checkpoint(model, tmp_path / "model.pth")
    with pytest.raises(InputError, match=message):
        prepare_qat(deploy)
    assert not list(tmp_path.iterdir())


def test_layers_with_lora_are_named(tmp_path: Path) -> None:
    training, deploy = small_network(name="mine"), small_network(deploy=True, name="mine", input_shape=(32, 32, 3))
    for model in (training, deploy):
        model.get_layer("classifier").enable_lora(2)
    message = r"Layer 'classifier' \(Dense\) of 'mine' has LoRA weights"
    with pytest.raises(ConversionError, match=message):
        reparameterize(training)
    with pytest.raises(InputError, match=message):
        export(deploy, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=message):
        save_checkpoint(deploy, tmp_path / "model.pth")
    # The way out that the message names.
    layer = training.get_layer("classifier")
    layer.lora_kernel_b.assign(random_images(layer.lora_kernel_b.shape))
    merged = small_network()
    for name in [own.name for own in merged.layers if own.name != "classifier"]:
        merged.get_layer(name).set_weights(training.get_layer(name).get_weights())
    merged.get_layer("classifier").set_weights([keras.ops.convert_to_numpy(layer.kernel), values_of(layer)[1]])
    images = random_images((1, 40, 40, 3))
    assert relative_error(infer(training, images), infer(reparameterize(merged), images)) < 1e-5
