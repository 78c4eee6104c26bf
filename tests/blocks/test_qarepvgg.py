"""QARepVGG: its block against PyTorch and against derivatives on paper, and the network everywhere a RepVGG goes.

Both forms of the block for every stride, group, width and attention are in test_blocks.py, which knows all kinds.
"""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

import repvgg
from helpers import (
    Array,
    detached,
    gradients,
    infer,
    random_images,
    relative_error,
    small_network,
    to_numpy,
    trained_like,
    values_of,
)
from repvgg.base.errors import CheckpointError, InputError, UnknownNameError
from repvgg.blocks import BLOCKS, KINDS, QARepVGGBlock
from repvgg.checkpoints.canonical import canonical_shapes
from repvgg.cli.commands import app
from repvgg.models.backbone import RepVGGBackbone
from repvgg.models.cost import count_cost
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.model import RepVGG
from repvgg.models.recover import recover
from repvgg.models.variants import VARIANTS

NAMES = [name for name in VARIANTS if name.startswith("QA")]
TINY: dict[str, Any] = {"num_blocks": [1, 2, 2, 1], "width_multiplier": [0.125] * 4}


def make_block(*arguments: Any, channels: int = 8, **options: Any) -> Any:
    block = QARepVGGBlock(*arguments, **options)
    block.build((None, None, None, channels))
    return trained_like(block)


def small(**options: Any) -> Any:
    return trained_like(small_network(block="QARepVGGBlock", **options))


# The block


@pytest.mark.backends
@pytest.mark.parametrize(
    ("strides", "groups", "channels", "size"),
    [(1, 1, 8, 6), (2, 1, 8, 6), (2, 1, 8, 5), (1, 4, 8, 5), (2, 2, 4, 6), (1, 1, 4, 5)],
)
def test_training_is_torchs(strides: int, groups: int, channels: int, size: int) -> None:
    """Outputs and running statistics after one batch in training mode, then outputs in inference mode."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    block = make_block(8, strides, groups, channels=channels)
    dense = nn.Conv2d(channels, 8, 3, strides, 1, groups=groups, bias=False)
    point = nn.Conv2d(channels, 8, 1, strides, groups=groups, bias=False)
    norms = {"dense": nn.BatchNorm2d(8), "outer": nn.BatchNorm2d(8)}
    ours = {"dense": block.conv3x3.norm, "outer": block.norm}
    with torch.no_grad():
        for convolution, branch in ((dense, block.conv3x3), (point, block.conv1x1)):
            convolution.weight.copy_(torch.from_numpy(to_numpy(branch.kernel).transpose(3, 2, 0, 1).copy()))
        for name, norm in norms.items():
            norm.weight.copy_(torch.from_numpy(to_numpy(ours[name].gamma).copy()))
            norm.bias.copy_(torch.from_numpy(to_numpy(ours[name].beta).copy()))
            norm.running_mean.copy_(torch.from_numpy(to_numpy(ours[name].moving_mean).copy()))
            norm.running_var.copy_(torch.from_numpy(to_numpy(ours[name].moving_variance).copy()))

    def forward(x: Any) -> Array:
        outputs = norms["dense"](dense(x)) + point(x)
        if strides == 1 and channels == 8:
            outputs = outputs + x
        result: Array = torch.relu(norms["outer"](outputs)).numpy().transpose(0, 2, 3, 1)
        return result

    images = random_images((2, size, size, channels))
    in_torch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = forward(in_torch)
        for norm in norms.values():
            norm.eval()
        later = forward(in_torch)
    outputs = block(keras.ops.convert_to_tensor(images), training=True)
    # The outer normalization divides by the spread of a sum of rounded terms.
    assert relative_error(expected, detached(outputs)) < 2e-5
    for name, norm in norms.items():
        assert relative_error(norm.running_mean.numpy(), ours[name].moving_mean) < 1e-5
        assert relative_error(norm.running_var.numpy(), ours[name].moving_variance) < 1e-5
    assert relative_error(later, infer(block, images)) < 2e-5


@pytest.mark.backends
@pytest.mark.parametrize("groups", [1, 2])
def test_the_equivalent_kernel_is_differentiable(rng: np.random.Generator, groups: int) -> None:
    """Against the derivatives on paper of K = t (s K3 + K1 + I) and b = t (beta - s mean) + outer beta - t outer mean,
    where s and t are the scales of the inner and of the outer normalization."""
    block = make_block(8, groups=groups)
    on_kernel, on_bias = rng.normal(size=(3, 3, 8 // groups, 8)), rng.normal(size=8)
    weigh_kernel, weigh_bias = (keras.ops.convert_to_tensor(array, "float32") for array in (on_kernel, on_bias))

    def loss() -> Any:
        kernel, bias = block.get_equivalent_kernel_bias()
        return keras.ops.sum(kernel * weigh_kernel) + keras.ops.sum(bias * weigh_bias)

    inner, outer = block.conv3x3.norm, block.norm
    deviation, outer_deviation = (
        np.sqrt(to_numpy(norm.moving_variance).astype("float64") + 1e-5) for norm in (inner, outer)
    )
    scale, outer_scale = to_numpy(inner.gamma) / deviation, to_numpy(outer.gamma) / outer_deviation
    dense, point = to_numpy(block.conv3x3.kernel), to_numpy(block.conv1x1.kernel)
    summed = dense * scale
    summed[1:2, 1:2] += point
    for channel in range(8):
        summed[1, 1, channel % (8 // groups), channel] += 1
    shift = to_numpy(inner.beta) - to_numpy(inner.moving_mean) * scale
    of_outer = (on_kernel * summed).sum(axis=(0, 1, 2)) + on_bias * (shift - to_numpy(outer.moving_mean))
    of_inner = (on_kernel * dense).sum(axis=(0, 1, 2)) - on_bias * to_numpy(inner.moving_mean)
    variables, expected = zip(
        (block.conv3x3.kernel, on_kernel * scale * outer_scale),
        (block.conv1x1.kernel, on_kernel[1:2, 1:2] * outer_scale),
        (inner.gamma, of_inner * outer_scale / deviation),
        (inner.beta, on_bias * outer_scale),
        (outer.gamma, of_outer / outer_deviation),
        (outer.beta, on_bias),
        strict=True,
    )
    for wanted, found in zip(expected, gradients(loss, variables), strict=True):
        assert relative_error(wanted, found) < 1e-5


@pytest.mark.backends
def test_it_trains() -> None:
    model = small_network(block="QARepVGGBlock")
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images, labels = random_images((4, 32, 32, 3)), np.arange(4)
    losses = [float(np.ravel(model.train_on_batch(images, labels))[0]) for _ in range(8)]
    assert losses[-1] < losses[0], losses


def test_the_graph_normalizes_twice() -> None:
    block = make_block(8)
    assert len([weight for weight in block.trainable_weights if weight.path.endswith("gamma")]) == 2
    block.switch_to_deploy()
    assert [weight.path.rsplit("/", 1)[-1] for weight in block.weights] == ["kernel", "bias"]


@pytest.mark.backends
def test_a_frozen_block_uses_and_keeps_its_statistics() -> None:
    block = make_block(8)
    images = random_images((2, 6, 6, 8))
    expected = infer(block, images)
    block.trainable = False
    before = values_of(block)
    frozen = block(keras.ops.convert_to_tensor(images), training=True)
    assert relative_error(expected, detached(frozen)) < 1e-6
    for first, second in zip(before, values_of(block), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_recipe_can_ask_for_custom_l2() -> None:
    assert [name for name, kind in KINDS.items() if kind.has_custom_l2] == ["RepVGGBlock"]
    with pytest.raises(InputError, match=r"'far' is a QARepVGGBlock, which has no custom L2\. .*ordinary weight decay"):
        make_block(8, name="far").get_custom_L2()


def test_no_weight_is_an_outlier_where_a_channel_is_silent() -> None:
    """What the design is for: the identity branch's normalization divides by the spread of a channel."""
    images = np.abs(random_images((4, 12, 12, 8)))
    images[..., 3] = 0
    largest = {}
    for kind in BLOCKS:
        block = BLOCKS[kind](8)
        for _ in range(60):
            block(keras.ops.convert_to_tensor(images), training=True)
        kernel = np.abs(block.folded().kernel)
        largest[kind] = kernel.max() / np.median(kernel)
    assert largest["RepVGGBlock"] > 10 * largest["QARepVGGBlock"]


# The networks


def test_names_and_what_was_published() -> None:
    sizes = ("A0", "A1", "A2", "B0", "B1", "B1g4", "B2", "B2g4")
    assert [f"QARepVGG-{size}" for size in sizes] == NAMES
    for name in NAMES:
        variant, plain = repvgg.get_variant(name), repvgg.get_variant(name.removeprefix("QA"))
        assert variant.architecture.block == "QARepVGGBlock"
        assert variant.architecture != plain.architecture
        assert "arXiv 2212.01593" in variant.published.source
        assert (variant.published.epochs is None) == (variant.published.top1 is None)
        assert variant.cost().deploy_macs == plain.cost().deploy_macs
    assert repvgg.get_variant("QARepVGG-A0").published.top1 == 72.2


def test_parameters() -> None:
    """RepVGG's, less one normalization for each identity branch: A0 has 1, 3 and 13 of them, 48, 96 and 192 wide."""
    cost = repvgg.get_variant("QARepVGG-A0").cost()
    assert cost.train_parameters == 9_108_968 - 2 * (48 + 3 * 96 + 13 * 192)
    assert cost.deploy_parameters == 8_309_384
    model = repvgg.create_model("QARepVGG-A0")
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == cost.train_parameters
    assert model.name == "qarepvgg_a0"
    assert get_metadata(model).variant == "QARepVGG-A0"


def test_every_kind_of_block_is_counted() -> None:
    assert set(KINDS) == set(BLOCKS)
    architecture = repvgg.Architecture((1, 1, 1, 1), (1, 1, 1, 1), block="DogBlock")
    with pytest.raises(UnknownNameError, match="no kind of block called 'DogBlock'"):
        count_cost(architecture, 10, (32, 32))


@pytest.mark.backends
@pytest.mark.parametrize("size", [64, 75])
def test_a_network_converts(size: int) -> None:
    model = small()
    deployed = repvgg.reparameterize(model)
    images = random_images((2, size, size, 3))
    assert relative_error(infer(model, images), infer(deployed, images)) < 1e-5
    assert all(type(layer).__module__.startswith("keras.") for layer in all_layers(deployed))


@pytest.mark.backends
def test_a_backbone_of_them() -> None:
    backbone = RepVGGBackbone([1, 1, 2, 1], [0.125] * 4, block="QARepVGGBlock", data_format="channels_first",
                              image_shape=(3, 32, 32))  # fmt: skip
    again = RepVGGBackbone.from_config(json.loads(json.dumps(backbone.get_config())))
    assert sum(isinstance(layer, QARepVGGBlock) for layer in again.layers) == 6


def test_the_name_goes_along(tmp_path: Path) -> None:
    model = repvgg.create_model("QARepVGG-A0", num_classes=3)
    deployed = repvgg.reparameterize(model)
    assert recover(model).architecture == recover(deployed).architecture == VARIANTS["QARepVGG-A0"].architecture
    # The layers alone are those of RepVGG-A0, and so is a deploy form whose name does not fit its layers.
    for name in (None, "RepVGG-A0", "QARepVGG-B0"):
        set_metadata(deployed, variant=name)
        assert recover(deployed).architecture == VARIANTS["RepVGG-A0"].architecture


def test_it_is_saved_inspected_and_exported(tmp_path: Path) -> None:
    model = small()
    repvgg.save_model(model, tmp_path / "training.keras")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "training.keras"), "--json", "--size", "64"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    counted = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert found["train_parameters"] == counted
    loaded = repvgg.load_model(tmp_path / "training.keras")
    images = random_images((2, 64, 64, 3))
    np.testing.assert_array_equal(infer(model, images), infer(loaded, images))
    repvgg.export(loaded, tmp_path / "model.onnx")
    runner = repvgg.load_runner(tmp_path / "model.onnx")
    assert relative_error(infer(model, images), runner(images)) < 1e-5


# Checkpoints


@pytest.mark.parametrize("dialect", ["official", "timm", "mmpretrain"])
def test_no_dialect_has_its_training_form(tmp_path: Path, dialect: str) -> None:
    with pytest.raises(
        InputError, match=r"consists of QARepVGGBlocks, whose training form .*first with repvgg.reparameterize"
    ):
        repvgg.save_checkpoint(small(), tmp_path / "file.pth", dialect)
    assert not list(tmp_path.iterdir())


def test_its_deploy_form_is_saved_like_any(tmp_path: Path) -> None:
    deployed = repvgg.reparameterize(small())
    repvgg.save_checkpoint(deployed, tmp_path / "file.safetensors", "timm")
    images = random_images((2, 64, 64, 3))
    np.testing.assert_array_equal(
        infer(deployed, images), infer(repvgg.load_checkpoint(tmp_path / "file.safetensors"), images)
    )


def test_a_torch_file_of_its_training_form_is_refused(tmp_path: Path) -> None:
    architecture = recover(small()).architecture
    shapes = canonical_shapes(architecture, "training", num_classes=5)
    save_file({name: np.ones(shape, "float32") for name, shape in shapes.items()}, tmp_path / "file.safetensors")
    with pytest.raises(CheckpointError, match=r"stage0\.bn\.weight"):
        repvgg.load_checkpoint(tmp_path / "file.safetensors")


def test_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`create_model` takes them from Keras files of both forms, for another number of classes too."""
    architecture = recover(RepVGG(**TINY, block="QARepVGGBlock")).architecture
    for name, block in (("QARepVGG-A0", "QARepVGGBlock"), ("RepVGG-A0", "RepVGGBlock")):
        tiny = repvgg.Architecture(architecture.num_blocks, architecture.width_multiplier, block=block)
        row = VARIANTS[name]
        monkeypatch.setitem(VARIANTS, name, type(row)(name, tiny, row.published))  # type: ignore[index]
    model = trained_like(repvgg.create_model("QARepVGG-A0", num_classes=5))
    deployed = repvgg.reparameterize(model)
    repvgg.save_model(model, tmp_path / "training.keras")
    repvgg.save_model(deployed, tmp_path / "deploy.keras")
    repvgg.save_checkpoint(deployed, tmp_path / "deploy.pth")
    images = random_images((2, 64, 64, 3))
    expected = infer(model, images)

    again = repvgg.create_model("QARepVGG-A0", 5, weights=tmp_path / "training.keras")
    np.testing.assert_array_equal(infer(again, images), expected)
    for file in ("training.keras", "deploy.keras", "deploy.pth"):
        found = repvgg.create_model("QARepVGG-A0", 5, deploy=True, weights=tmp_path / file)
        assert relative_error(expected, infer(found, images)) < 1e-5
        assert get_metadata(found).variant == "QARepVGG-A0"
        assert recover(found).architecture.block == "QARepVGGBlock"
    other = repvgg.create_model("QARepVGG-A0", 7, weights=tmp_path / "training.keras")
    np.testing.assert_array_equal(values_of(other)[0], values_of(model)[0])
    assert other.output_shape == (None, 7)
    with pytest.raises(CheckpointError, match=r"not those of RepVGG-A0.*found.*made of QARepVGGBlocks"):
        repvgg.create_model("RepVGG-A0", 5, weights=tmp_path / "training.keras")
    with pytest.raises(CheckpointError, match=r"not those of RepVGG-A0.*made of QARepVGGBlocks, which is QARepVGG-A0"):
        repvgg.create_model("RepVGG-A0", 5, deploy=True, weights=tmp_path / "deploy.keras")
    # A file of PyTorch's does not say what it was trained as.
    plain = repvgg.create_model("RepVGG-A0", 5, deploy=True, weights=tmp_path / "deploy.pth")
    assert get_metadata(plain).variant == "RepVGG-A0"
    # New branches are RepVGG's, whatever the old ones were.
    expanded = repvgg.load_checkpoint(tmp_path / "deploy.keras", from_deploy="expand")
    assert get_metadata(expanded).variant == "RepVGG-A0"
    assert relative_error(expected, infer(expanded, images)) < 1e-5


def test_there_are_no_published_weights() -> None:
    with pytest.raises(InputError, match="QARepVGG-A0"):
        repvgg.create_model("QARepVGG-A0", weights="imagenet")
