"""Whole networks: what they give, for which inputs, in which dtypes, and that they learn."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import (
    BACKEND,
    SQUEEZE_EXCITE,
    assert_same_values,
    infer,
    random_images,
    relative_error,
    small_network,
    trained_like,
    values_of,
)
from repvgg.base.errors import FileError, InputError
from repvgg.blocks import AuxiliaryClassifier, RepVGGBlock
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterize
from repvgg.core.architecture import SqueezeExcite
from repvgg.models.metadata import get_metadata
from sampling import pairwise

both_forms = pytest.mark.parametrize("deploy", [False, True], ids=["training", "deploy"])
plus_options: dict[str, Any] = {"squeeze_excite": SqueezeExcite("after_activation", 4), "auxiliary_heads": True}


@both_forms
@pytest.mark.parametrize("size", [(64, 64), pytest.param((75, 64), marks=pytest.mark.backends), (33, 47), (1, 1)])
def test_logits_at_any_size(deploy: bool, size: tuple[int, int]) -> None:
    model = trained_like(small_network(deploy=deploy))
    logits = infer(model, random_images((3, *size, 3)))
    assert logits.shape == (3, 5)
    assert np.isfinite(logits).all()
    # A softmax would hide that these are logits.
    assert not np.allclose(logits.sum(axis=1), 1)


@pytest.mark.backends
@both_forms
def test_an_image_is_judged_alone_in_inference(deploy: bool) -> None:
    model = trained_like(small_network(deploy=deploy))
    images = random_images((4, 40, 40, 3))
    assert relative_error(infer(model, images)[2:3], infer(model, images[2:3])) < 1e-5


@pytest.mark.backends
@both_forms
def test_features_of_all_stages(deploy: bool) -> None:
    features = infer(small_network(num_classes=None, deploy=deploy), random_images((2, 75, 64, 3)))
    assert {name: map_.shape for name, map_ in features.items()} == {
        "stage0": (2, 38, 32, 8),
        "stage1": (2, 19, 16, 8),
        "stage2": (2, 10, 8, 16),
        "stage3": (2, 5, 4, 32),
        "stage4": (2, 3, 2, 64),
    }


@both_forms
def test_features_are_those_the_classifier_judges(deploy: bool) -> None:
    classifier, extractor = small_network(deploy=deploy), small_network(num_classes=None, deploy=deploy)
    trained_like(classifier)
    extractor.set_weights(values_of(classifier)[:-2])
    images = random_images((2, 64, 64, 3))
    kernel, bias = values_of(classifier.get_layer("classifier"))
    pooled = infer(extractor, images)["stage4"].mean(axis=(1, 2))
    assert relative_error(infer(classifier, images), pooled @ kernel + bias) < 1e-5


@pytest.mark.parametrize(("channels", "size"), [(1, None), (4, 48)])
def test_other_input_shapes(channels: int, size: int | None) -> None:
    model = small_network(input_shape=(size, size, channels))
    assert model.input_shape == (None, size, size, channels)
    assert infer(model, random_images((1, 48, 48, channels))).shape == (1, 5)


def test_networks_by_name_and_by_numbers_are_the_same() -> None:
    named = create_model("RepVGG-A0", num_classes=7)
    built = small_network(num_blocks=[2, 4, 14, 1], width_multiplier=[0.75, 0.75, 0.75, 2.5], num_classes=7)
    assert [weight.path for weight in named.weights] == [weight.path for weight in built.weights]
    assert get_metadata(built).variant == get_metadata(named).variant == "RepVGG-A0"
    assert get_metadata(named).form == "training"
    assert get_metadata(small_network(deploy=True)).form == "deploy"
    assert get_metadata(small_network()).variant is None


def test_the_groups_map_counts_from_the_stem() -> None:
    model = small_network(override_groups_map={1: 2, 3: 4})
    groups = {layer.name: layer.groups for layer in model.layers if isinstance(layer, RepVGGBlock)}
    assert {name: count for name, count in groups.items() if count > 1} == {"stage1_block0": 2, "stage2_block1": 4}


def test_the_deploy_form_is_stock_keras_and_pads_where_the_stride_is_2() -> None:
    model = small_network(
        deploy=True, squeeze_excite=SQUEEZE_EXCITE["before"] and SqueezeExcite("before_activation", 4)
    )
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    padded = [layer for layer in model.layers if isinstance(layer, keras.layers.ZeroPadding2D)]
    assert [layer.name for layer in padded] == [
        f"{name}_pad" for name in ("stage0", "stage1_block0", "stage2_block0", "stage3_block0", "stage4_block0")
    ]
    assert {layer.padding for layer in padded} == {((1, 1), (1, 1))}


def test_auxiliary_heads() -> None:
    model = small_network(num_blocks=[1, 2, 4, 1], **plus_options)
    outputs = infer(model, random_images((2, 64, 64, 3)))
    assert {name: array.shape for name, array in outputs.items()} == dict.fromkeys(
        ("main", "stage1_aux", "stage2_aux", "stage3_first_aux"), (2, 5)
    )
    heads = {layer.name: layer for layer in model.layers if isinstance(layer, AuxiliaryClassifier)}
    listens_to = {name: head.input._keras_history.operation.name for name, head in heads.items()}
    assert listens_to == {
        "stage1_aux": "stage1_block0",
        "stage2_aux": "stage2_block1",
        "stage3_first_aux": "stage3_block1",
    }
    assert infer(
        small_network(num_blocks=[1, 2, 4, 1], deploy=True, **plus_options), random_images((1, 64, 64, 3))
    ).shape == (
        1,
        5,
    )


@pytest.mark.backends
def test_an_auxiliary_head_by_hand() -> None:
    """conv 3x3 stride 2, normalization, ReLU, mean, linear, as torch computes them, here in NumPy."""
    from helpers import convolve, normalize, to_numpy

    head = AuxiliaryClassifier(5)
    head.build((None, 7, 8, 4))
    trained_like(head)
    images = random_images((2, 7, 8, 4))
    norm = head.conv.norm
    gamma, beta, mean, variance = map(to_numpy, (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance))
    features = normalize(convolve(images, to_numpy(head.conv.kernel), 2), gamma, beta, mean, variance, 1e-5)
    kernel, bias = values_of(head.classifier)
    assert relative_error(np.maximum(features, 0).mean(axis=(1, 2)) @ kernel + bias, infer(head, images)) < 1e-5


@pytest.mark.parametrize("options", [{}, pytest.param(plus_options, marks=pytest.mark.backends)], ids=["plain", "plus"])
@both_forms
def test_saved_and_loaded(tmp_path: Path, deploy: bool, options: dict[str, Any]) -> None:
    model = trained_like(small_network(deploy=deploy, **options))
    images = random_images((2, 40, 41, 3))
    expected = infer(model, images)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_values(values_of(model), values_of(loaded))
    keras.tree.map_structure(np.testing.assert_array_equal, expected, infer(loaded, images))


def test_weights_by_file(tmp_path: Path) -> None:
    model = trained_like(create_model("RepVGG-A0", num_classes=3))
    model.save_weights(tmp_path / "a0.weights.h5")
    again = create_model("RepVGG-A0", num_classes=3, weights=tmp_path / "a0.weights.h5")
    assert_same_values(values_of(model), values_of(again))
    with pytest.raises(FileError, match=r"a0\.weights\.h5' do not fit this model"):
        create_model("RepVGG-A0", num_classes=4, weights=tmp_path / "a0.weights.h5")
    with pytest.raises(FileError, match=r"do not fit this model"):
        create_model("RepVGG-A0", num_classes=3, deploy=True, weights=tmp_path / "a0.weights.h5")
    with pytest.raises(FileError, match=r"The weights file '.*none\.weights\.h5' does not exist"):
        create_model("RepVGG-A0", weights=tmp_path / "none.weights.h5")


@pytest.mark.backends
@pairwise({"compute": ["float16", "bfloat16"], "deploy": [False, True]})
def test_mixed_precision(compute: str, deploy: bool) -> None:
    policy = f"mixed_{compute}"
    model = trained_like(small_network(dtype=policy, deploy=deploy))
    wide = small_network(deploy=deploy)
    wide.set_weights(values_of(model))
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert model.get_layer("stage3_block1").compute_dtype == compute
    images = random_images((2, 64, 64, 3))
    logits = infer(model, images)
    assert logits.dtype == np.float32
    # Half a percent a rounding in bfloat16, a twentieth of that in float16, over 7 blocks.
    assert 0 < relative_error(infer(wide, images), logits) < {"float16": 1e-2, "bfloat16": 1e-1}[compute]


@both_forms
def test_float64(deploy: bool) -> None:
    model = trained_like(small_network(dtype="float64", deploy=deploy, override_groups_map={3: 2}))
    assert {str(weight.dtype) for weight in model.weights} == {"float64"}
    images = random_images((2, 64, 64, 3), dtype="float64")
    assert infer(model, images).dtype == np.float64
    narrow = small_network(deploy=deploy, override_groups_map={3: 2})
    narrow.set_weights(values_of(model))
    assert 1e-9 < relative_error(infer(model, images), infer(narrow, images.astype("float32"))) < 1e-5


@pytest.mark.processor
@pytest.mark.parametrize(
    ("policy", "groups"),
    [
        ("float32", {}),
        pytest.param("mixed_bfloat16", {2: 2, 4: 4}, marks=() if BACKEND == "jax" else pytest.mark.backends),
        ("mixed_float16", {2: 2, 4: 4}),
    ],
)
def test_a_step_lowers_the_loss(policy: str, groups: dict[int, int]) -> None:
    model = small_network(dtype=policy, override_groups_map=groups)
    model.compile(
        keras.optimizers.SGD(0.05), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False
    )
    images, labels = random_images((16, 32, 32, 3)), np.arange(16) % 5
    before = values_of(model)
    history = model.fit(images, labels, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"]
    assert history[0] > history[1] > history[2]
    changed = [not np.array_equal(old, new) for old, new in zip(before, values_of(model), strict=True)]
    assert all(changed)


def test_auxiliary_heads_learn_too() -> None:
    model = small_network(num_blocks=[1, 1, 2, 1], **plus_options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = ("main", "stage1_aux", "stage2_aux", "stage3_first_aux")
    model.compile(
        keras.optimizers.SGD(0.05),
        loss=dict.fromkeys(names, loss),
        loss_weights={name: 1.0 if name == "main" else 0.1 for name in names},
    )
    labels = np.arange(8) % 5
    images = random_images((8, 64, 64, 3))
    history = model.fit(images, dict.fromkeys(names, labels), batch_size=8, epochs=5, verbose=0).history
    for name in names:
        assert history[f"{name}_loss"][-1] < history[f"{name}_loss"][0]


@pytest.mark.backends
def test_a_converted_network_learns_on() -> None:
    model = reparameterize(trained_like(small_network()))
    model.compile(keras.optimizers.SGD(0.001), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = random_images((8, 32, 32, 3)), np.arange(8) % 5
    history = model.fit(images, labels, epochs=2, batch_size=8, verbose=0).history["loss"]
    assert history[1] < history[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "`num_classes` must be at least 1, or None for features. Received: 0"),
        ({"input_shape": (32, 32)}, r"`input_shape` needs \(height, width, channels\).* Received: \(32, 32\)"),
        ({"input_shape": (None, None, None)}, "`input_shape` needs a number of channels"),
        ({"input_shape": (32, 32, 0)}, "`input_shape` needs a number of channels"),
        ({"block": "RepVGGBlok"}, "RepVGGBlok.*RepVGGBlock"),
        ({"num_blocks": [1, 2, 2]}, "`num_blocks` needs one value for each of the 4 stages"),
        (
            {"override_groups_map": {1: 3}},
            r"Block 1 \(stage1_block0\) has 8 input channels, which 3 groups do not divide",
        ),
        ({"override_groups_map": {9: 2}}, "`override_groups_map` names block 9"),
        ({"num_blocks": [1, 1, 1, 1], "auxiliary_heads": True}, "needs at least 2 blocks"),
    ],
)
def test_arguments_that_make_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        small_network(**options)


@both_forms
def test_images_of_other_channels(deploy: bool) -> None:
    with pytest.raises(ValueError, match=r"(?s)3.*4"):
        infer(small_network(deploy=deploy), random_images((1, 32, 32, 4)))
