"""Code written for the tutorial, or for the official repository, with nothing changed but its import."""

from pathlib import Path

import keras
import numpy as np
import pytest

import repvgg
from helpers import infer, random_images, relative_error, trained_like
from repvgg import compat
from repvgg.base.errors import ConversionError, InputError, UnknownNameError
from sampling import sampled

TOLERANCE = 1e-5
"""The issue's limit for a whole network in float32: some 80 roundings."""


@pytest.mark.backends
@pytest.mark.parametrize("name", sampled(["RepVGG-A0", "RepVGG-B1g4"], ["RepVGG-A0"]))
def test_the_tutorials_flow(name: str) -> None:
    model = compat.get_RepVGG_func_by_name(name)(num_classes=10)
    model.build((None, 96, 96, 3))
    trained_like(model)

    deployed = compat.repvgg_model_convert(model, name)

    images = random_images((2, 96, 96, 3))
    before = model(images, training=False)
    after = deployed(images, training=False)
    assert relative_error(infer(model, images), infer(deployed, images)) <= TOLERANCE
    assert before.shape == after.shape == (2, 10)


def test_example_1_of_the_official_readme(tmp_path: Path) -> None:
    """Training model, converted model in a file, loaded again into a model that was created for deployment."""
    train_model = trained_like(compat.create_RepVGG_A0(num_classes=7, deploy=False))
    path = tmp_path / "RepVGG-A0-deploy.weights.h5"
    deploy_model = compat.repvgg_model_convert(train_model, save_path=path)

    loaded = compat.create_RepVGG_A0(num_classes=7, deploy=True)
    loaded.load_weights(path)

    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(train_model, images), infer(deploy_model, images)) <= TOLERANCE
    np.testing.assert_array_equal(infer(deploy_model, images), infer(loaded, images))


def test_example_2_of_the_official_readme() -> None:
    """A segmentation network around a backbone is converted as a whole; its own normalization stays."""
    backbone = repvgg.RepVGGBackbone([1, 2, 2, 1], [0.25] * 4, {2: 2, 4: 2, 6: 2}, image_shape=(64, 64, 3))
    inputs = keras.Input((64, 64, 3))
    x = keras.layers.Conv2D(8, 1, use_bias=False)(backbone(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(name="head_norm")(x))
    x = keras.layers.UpSampling2D(32, interpolation="bilinear")(keras.layers.Conv2D(3, 1)(x))
    pspnet = trained_like(keras.Model(inputs, x))

    deployed = compat.repvgg_model_convert(pspnet)

    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(pspnet, images), infer(deployed, images)) <= TOLERANCE
    assert isinstance(deployed.get_layer("head_norm"), keras.layers.BatchNormalization)


@pytest.mark.parametrize("name", list(compat.func_dict))
def test_every_function_creates_its_variant(name: str) -> None:
    function = compat.func_dict[name]
    assert function is getattr(compat, f"create_{name.replace('-', '_')}")
    assert function.__name__ == f"create_{name.replace('-', '_')}"
    assert name in repvgg.list_variants()


def test_all_of_the_papers_networks_are_there() -> None:
    others = set(repvgg.list_variants()) - set(compat.func_dict)
    assert {name for name in others if name.startswith("RepVGG")} == {"RepVGGplus-L2pse"}


def test_block_with_the_tutorials_arguments() -> None:
    block = compat.RepVGGBlock(filters=8, kernel_size=3, strides=2, padding="same", groups=2, deploy=False)
    block.build((None, None, None, 4))
    trained_like(block)
    kernel, bias = block.repvgg_convert()
    assert kernel.shape == (3, 3, 2, 8)
    assert bias.shape == (8,)
    tensors = block.get_equivalent_kernel_bias()
    np.testing.assert_array_equal(kernel, keras.ops.convert_to_numpy(tensors[0]))
    again = compat.RepVGGBlock.from_config(block.get_config())
    assert (again.filters, again.strides, again.groups) == (8, 2, 2)


def test_conv_bn_with_the_tutorials_arguments() -> None:
    layer = compat.ConvBn(6, 1, strides=2, padding="same", groups=1)
    assert layer(random_images((1, 9, 10, 3))).shape == (1, 5, 5, 6)


def test_network_with_the_tutorials_arguments() -> None:
    model = compat.RepVGG([1, 1, 2, 1], 5, [0.25] * 4, compat.g4_map, False)
    assert model(random_images((1, 33, 32, 3)), training=False).shape == (1, 5)
    # g4_map names 13 blocks, and this network has the places up to 5.
    assert [block.groups for block in model.layers if isinstance(block, repvgg.RepVGGBlock)] == [1, 1, 4, 1, 4, 1]


def test_group_maps_are_the_official_ones() -> None:
    assert compat.optional_groupwise_layers == [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26]
    assert compat.g2_map == dict.fromkeys(compat.optional_groupwise_layers, 2)
    assert compat.g4_map == dict.fromkeys(compat.optional_groupwise_layers, 4)


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"no variant called 'RepVGG-A9'. Did you mean RepVGG-A"):
        compat.get_RepVGG_func_by_name("RepVGG-A9")


def test_wrong_model_name() -> None:
    with pytest.raises(ConversionError, match="This model is RepVGG-A0, not RepVGG-B0"):
        compat.repvgg_model_convert(compat.create_RepVGG_A0(3), "RepVGG-B0")


@pytest.mark.parametrize("arguments", [{"padding": "valid"}, {"kernel_size": 4}, {"kernel_size": 5}])
def test_blocks_that_cannot_be_folded(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"padding='same'|3x3 kernel"):
        compat.RepVGGBlock(8, **{"kernel_size": 3, **arguments})  # type: ignore[arg-type]
