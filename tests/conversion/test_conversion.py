"""Our blocks inside networks of other people's making, from training to deploy form."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from converting import assert_converts, assert_stock, convert

from helpers import (
    SQUEEZE_EXCITE,
    assert_same_values,
    infer,
    random_images,
    relative_error,
    run_python,
    small_network,
    to_numpy,
    trained_like,
    values_of,
)
from repvgg.blocks import AuxiliaryClassifier, RepVGGBlock
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterization as conversion
from repvgg.conversion import reparameterize
from repvgg.core.architecture import SqueezeExcite
from repvgg.models.backbone import RepVGGBackbone
from repvgg.models.layers import all_layers
from repvgg.models.metadata import set_metadata
from repvgg.models.saving import save_model


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((None, None, 3)),
            RepVGGBlock(8, 2),
            RepVGGBlock(8, squeeze_excite=SQUEEZE_EXCITE["before"]),
            keras.layers.Dropout(0.5),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ],
        name="stack",
    )


def with_skips_and_operations() -> Any:
    images = keras.Input((None, None, 3))
    x = RepVGGBlock(8, 2, name="stem")(images)
    y = RepVGGBlock(8, groups=2, name="inner")(x)
    x = keras.ops.relu(x + y * 0.5)
    z = RepVGGBlock(8, 2, name="down", activation=None)(x)
    outputs = keras.ops.concatenate([keras.ops.mean(z, axis=(1, 2)), keras.ops.max(x, axis=(1, 2))], axis=-1)
    return keras.Model(images, outputs, name="skips")


def segmentation() -> Any:
    """A backbone as one layer, its own convolutions and normalizations around it."""
    backbone = RepVGGBackbone([1, 1, 2, 1], [0.125] * 4)
    pyramid = keras.Model(backbone.inputs, backbone.pyramid_outputs, name="pyramid")
    images = keras.Input((64, 64, 3))
    x = keras.layers.BatchNormalization(name="foreign_first_norm")(images)
    levels = pyramid(x)
    x = keras.layers.UpSampling2D(2)(levels["P3"])
    x = keras.layers.Concatenate()([x, levels["P2"]])
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False, name="foreign_conv")(x)
    x = keras.layers.BatchNormalization(name="foreign_norm")(x)
    x = keras.layers.ReLU()(x)
    return keras.Model(images, keras.layers.Conv2D(2, 1, name="foreign_scores")(x), name="segmentation")


def nested() -> Any:
    """A Sequential in a functional model in a functional model."""
    inner = keras.Sequential(
        [keras.Input((None, None, 8)), RepVGGBlock(8, name="deep"), keras.layers.ReLU()], name="inner"
    )
    features = keras.Input((None, None, 3))
    middle = keras.Model(features, inner(RepVGGBlock(8, 2, name="near")(features)) + 1.0, name="middle")
    images = keras.Input((None, None, 3))
    return keras.Model(images, keras.layers.GlobalMaxPooling2D()(middle(images)), name="outer")


def multi_input_multi_output() -> Any:
    left, right = keras.Input((32, 32, 3), name="left"), keras.Input((32, 32, 1), name="right")
    a, b = RepVGGBlock(8, 2, name="left_block")(left), RepVGGBlock(8, 2, name="right_block")(right)
    both = RepVGGBlock(8, name="joint")(a + b)
    pooled = keras.layers.GlobalAveragePooling2D()(both)
    outputs = {"classes": keras.layers.Dense(3, name="classes")(pooled), "map": keras.layers.Conv2D(1, 1)(a)}
    return keras.Model({"left": left, "right": right}, outputs, name="two_eyes")


def list_of_outputs() -> Any:
    images = keras.Input((None, None, 3))
    first = RepVGGBlock(8, 2)(images)
    return keras.Model([images], [first, RepVGGBlock(8, 2)(first)], name="list")


def block_as_output_and_input() -> Any:
    images = keras.Input((16, 16, 4))
    return keras.Model(images, RepVGGBlock(4, name="alone")(images))


FOREIGN: dict[str, tuple[Callable[[], Any], Any]] = {
    "sequential": (sequential, (2, 33, 32, 3)),
    "skips": (with_skips_and_operations, (2, 33, 40, 3)),
    "segmentation": (segmentation, (2, 64, 64, 3)),
    "nested": (nested, (2, 17, 16, 3)),
    "two_eyes": (multi_input_multi_output, {"left": (2, 32, 32, 3), "right": (2, 32, 32, 1)}),
    "list": (list_of_outputs, (1, 18, 19, 3)),
    "alone": (block_as_output_and_input, (2, 16, 16, 4)),
}
every_foreign = pytest.mark.parametrize(("make", "shape"), FOREIGN.values(), ids=FOREIGN)


def images_of(shape: Any) -> Any:
    if isinstance(shape, dict):
        return {name: random_images(inner, seed) for seed, (name, inner) in enumerate(shape.items())}
    return random_images(shape)


@pytest.mark.backends
@every_foreign
def test_networks_of_other_peoples_making(tmp_path: Path, make: Callable[[], Any], shape: Any) -> None:
    """They convert, and are saved and loaded in both forms."""
    model = make()
    images = images_of(shape)
    deployed = assert_converts(model, images)
    assert_stock(deployed)
    assert deployed.name == model.name
    assert [tensor.shape for tensor in deployed.inputs] == [tensor.shape for tensor in model.inputs]
    for form, name in ((model, "training.keras"), (deployed, "deploy.keras")):
        form.save(tmp_path / name)
        loaded = keras.saving.load_model(tmp_path / name)
        keras.tree.map_structure(np.testing.assert_array_equal, infer(form, images), infer(loaded, images))


def test_foreign_layers_are_left_alone() -> None:
    model = trained_like(segmentation())
    deployed = reparameterize(model)
    foreign = [layer.name for layer in model.layers if layer.name.startswith("foreign")]
    assert len(foreign) == 4
    for name in foreign:
        mine, copy = model.get_layer(name), deployed.get_layer(name)
        assert type(copy) is type(mine)
        assert copy is not mine
        assert copy.get_config() == mine.get_config()
        assert_same_values(values_of(mine), values_of(copy))
    assert [type(layer).__name__ for layer in deployed.layers].count("BatchNormalization") == 2


@pytest.mark.backends
def test_a_block_shared_between_two_heads_stays_shared() -> None:
    shared = RepVGGBlock(8, name="shared")
    images = keras.Input((None, None, 3))
    trunk = RepVGGBlock(8, 2, name="trunk")(images)
    first, second = shared(trunk), shared(shared(trunk))
    model = keras.Model(images, [keras.layers.Dense(2)(first), keras.layers.Dense(3)(second)])
    deployed = assert_converts(model, random_images((2, 20, 21, 3)))
    assert len([layer for layer in deployed.layers if layer.name == "shared"]) == 1
    assert deployed.count_params() == (9 * 3 * 8 + 8) + (9 * 8 * 8 + 8) + (8 * 2 + 2) + (8 * 3 + 3)


def test_a_model_shared_between_two_branches_stays_shared() -> None:
    tower = keras.Sequential([keras.Input((32, 32, 3)), RepVGGBlock(8, 2), keras.layers.GlobalAveragePooling2D()])
    left, right = keras.Input((32, 32, 3)), keras.Input((32, 32, 3))
    model = keras.Model([left, right], keras.ops.abs(tower(left) - tower(right)), name="siamese")
    images = [random_images((2, 32, 32, 3), seed) for seed in (1, 2)]
    deployed = assert_converts(model, images)
    assert deployed.count_params() == 9 * 3 * 8 + 8
    # Exchanging the two images changes nothing only if both branches have the same weights.
    np.testing.assert_array_equal(infer(deployed, images), infer(deployed, images[::-1]))


@pytest.mark.parametrize(("strides", "as_model"), [(1, True), (2, False)], ids=["model", "block"])
def test_blocks_over_time(strides: int, as_model: bool) -> None:
    layer: Any = RepVGGBlock(8, strides, name="frame", squeeze_excite=SQUEEZE_EXCITE["after"])
    if as_model:
        layer = keras.Sequential([keras.Input((17, 16, 3)), layer, keras.layers.GlobalAveragePooling2D()])
    video = keras.Input((3, 17, 16, 3))
    x = keras.layers.TimeDistributed(layer)(video)
    model = keras.Model(video, keras.ops.mean(x, axis=1), name="video")
    assert_stock(assert_converts(model, random_images((2, 3, 17, 16, 3))))


def test_a_block_called_with_its_training_argument() -> None:
    images = keras.Input((16, 16, 8))
    model = keras.Model(images, RepVGGBlock(8, name="frozen")(images, training=False))
    assert_converts(model, random_images((2, 16, 16, 8)))


def test_kernels_are_the_float64_fold_rounded_once() -> None:
    model = trained_like(small_network())
    deployed = reparameterize(model)
    for name in ("stage2_block1", "stage4_block0"):
        linear = model.get_layer(name).folded()
        assert linear.kernel.dtype == np.float64
        kernel, bias = values_of(deployed.get_layer(name))
        np.testing.assert_array_equal(kernel, linear.kernel.astype("float32"))
        np.testing.assert_array_equal(bias, linear.bias.astype("float32"))


@pytest.mark.backends
def test_auxiliary_heads_vanish() -> None:
    options: dict[str, Any] = {"squeeze_excite": SqueezeExcite("after_activation", 4), "auxiliary_heads": True}
    model = trained_like(small_network(num_blocks=[1, 2, 4, 1], **options))
    deployed = convert(model)
    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(model, images)["main"], infer(deployed, images)) < 1e-5
    assert not any(isinstance(layer, AuxiliaryClassifier) for layer in all_layers(deployed))
    same = small_network(num_blocks=[1, 2, 4, 1], deploy=True, **options)
    assert [weight.path for weight in deployed.weights] == [weight.path for weight in same.weights]
    same.set_weights(values_of(deployed))
    np.testing.assert_array_equal(infer(same, images), infer(deployed, images))


def test_the_deploy_form_by_name_has_the_same_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "check_conversion", lambda *arguments: None)
    deployed, built = (
        reparameterize(create_model("RepVGG-A0", num_classes=3)),
        create_model("RepVGG-A0", 3, deploy=True),
    )
    assert [layer.name for layer in deployed.layers] == [layer.name for layer in built.layers]
    assert [weight.path for weight in deployed.weights] == [weight.path for weight in built.weights]


@pytest.mark.backends
def test_a_compiled_model_trains_on_afterwards() -> None:
    model = trained_like(small_network())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss=loss, metrics=["accuracy"])
    images, labels = random_images((8, 32, 32, 3)), np.arange(8) % 5
    first = model.train_on_batch(images, labels)[0]
    state = values_of(model.optimizer) if hasattr(model.optimizer, "weights") else []
    deployed = convert(model)
    for variable, before in zip(model.optimizer.variables, state, strict=False):
        np.testing.assert_array_equal(to_numpy(variable), before)
    kept, before_training = values_of(deployed), values_of(model)
    losses = [model.train_on_batch(images, labels)[0] for _ in range(5)]
    assert losses[-1] < first
    assert not np.array_equal(values_of(model)[0], before_training[0])
    assert_same_values(kept, values_of(deployed))


def test_frozen_layers_stay_frozen() -> None:
    model = small_network()
    for layer in model.layers[:4]:
        layer.trainable = False
    deployed = reparameterize(model)
    assert not deployed.get_layer("stage0").trainable
    assert not deployed.get_layer("stage2_block0").trainable
    assert deployed.get_layer("stage4_block0").trainable


# What leaves the house


def test_the_result_runs_where_this_package_is_not(tmp_path: Path) -> None:
    """All that a block may have: groups, attention, strides, dilation, nesting."""
    images = keras.Input((None, None, 3))
    x = RepVGGBlock(8, 2, squeeze_excite=SQUEEZE_EXCITE["before"])(images)
    x = RepVGGBlock(8, groups=2, dilation_rate=2)(x)
    x = keras.Sequential([keras.Input((None, None, 8)), RepVGGBlock(16, 2, 4, squeeze_excite=SQUEEZE_EXCITE["after"])])(
        x
    )
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    deployed = reparameterize(trained_like(model))
    set_metadata(deployed, class_names=("ant", "bee", "cat"))
    save_model(deployed, tmp_path / "deployed.keras")
    batch = random_images((2, 40, 33, 3))
    np.save(tmp_path / "images.npy", batch)
    code = """
import sys
sys.modules["repvgg"] = None  # any import of it fails
import keras, numpy as np
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/deployed.keras")
np.save(folder + "/outputs.npy", model.predict(np.load(folder + "/images.npy"), verbose=0))
assert sys.modules.pop("repvgg") is None
assert not [name for name in sys.modules if name.startswith("repvgg")]
"""
    run_python(code, tmp_path)
    assert relative_error(infer(model, batch), np.load(tmp_path / "outputs.npy")) < 1e-5
