"""What a state dict does not tell: strides, dilation and epsilon, against the reference's arithmetic in NumPy."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Array, convolve, infer, normalize, random_images, relative_error, small_network, trained_like
from repvgg.base.errors import InputError
from repvgg.checkpoints import load_checkpoint, save_checkpoint
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterize
from repvgg.core.architecture import Adaptation, Architecture
from repvgg.models.cost import count_cost
from repvgg.models.metadata import get_metadata
from repvgg.models.model import RepVGG
from repvgg.models.recover import recover
from repvgg.models.saving import load_model, save_model
from repvgg.models.variants import find_variant, get_variant
from sampling import sampled

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"

USUAL = (2, 1, 1)
CASES: dict[str, tuple[dict[str, Any], int, list[tuple[int, int, int]]]] = {
    # Arguments; stride of the stem; of each stage the first block's stride and dilation, and the others' dilation.
    "stem of stride 1": ({"stem_strides": 1}, 1, [USUAL] * 4),
    "output stride 16": ({"output_stride": 16}, 2, [USUAL, USUAL, USUAL, (1, 2, 2)]),
    # The official example_pspnet.py: 2 in all of stage 3, 4 in all of stage 4.
    "output stride 8": ({"output_stride": 8}, 2, [USUAL, USUAL, (1, 2, 2), (1, 4, 4)]),
    # torchvision's ResNet and timm: the block that lost its stride keeps the dilation of the stage before.
    "dilated but for the first": ({"output_stride": 8, "dilate_first": False}, 2, [USUAL, USUAL, (1, 1, 2), (1, 2, 4)]),
    "both": ({"stem_strides": 1, "output_stride": 8}, 1, [USUAL, USUAL, USUAL, (1, 2, 2)]),
    "epsilon": ({"epsilon": 1e-3}, 2, [USUAL] * 4),
}
every_case = pytest.mark.parametrize("case", CASES)


def reference_logits(tensors: dict[str, Array], images: Array, case: str) -> Array:
    """The official forward pass in float64."""
    options, stem_strides, stages = CASES[case]
    epsilon = options.get("epsilon", 1e-5)

    def norm(x: Array, name: str) -> Array:
        leaves = ("weight", "bias", "running_mean", "running_var")
        return normalize(x, *(tensors[f"{name}.{leaf}"].astype(np.float64) for leaf in leaves), epsilon)

    def block(x: Array, prefix: str, strides: int, dilation: int) -> Array:
        dense, point = (
            tensors[f"{prefix}.{branch}.conv.weight"].astype(np.float64).transpose(2, 3, 1, 0)
            for branch in ("rbr_dense", "rbr_1x1")
        )
        total = norm(convolve(x, dense, strides, dilation_rate=dilation), f"{prefix}.rbr_dense.bn")
        total = total + norm(convolve(x, point, strides), f"{prefix}.rbr_1x1.bn")
        if f"{prefix}.rbr_identity.weight" in tensors:
            total = total + norm(x, f"{prefix}.rbr_identity")
        return np.maximum(total, 0)

    x = block(images.astype(np.float64), "stage0", stem_strides, 1)
    for stage, (strides, first, rest) in enumerate(stages, start=1):
        depth = len({name.split(".")[1] for name in tensors if name.startswith(f"stage{stage}.")})
        for index in range(depth):
            x = block(x, f"stage{stage}.{index}", strides if index == 0 else 1, first if index == 0 else rest)
    logits: Array = x.mean(axis=(1, 2)) @ tensors["linear.weight"].T.astype(np.float64) + tensors["linear.bias"]
    return logits


@pytest.mark.backends
@pytest.mark.parametrize("case", sampled(CASES, ["both", "epsilon"]))
def test_the_network_that_the_checkpoint_was_of(case: str, tmp_path: Path) -> None:
    source = REFERENCE / "official_train.pth"
    tensors = {name: np.array(tensor) for name, tensor in read_tensors(source).tensors.items()}
    images = random_images((2, 45, 40, 3))
    expected = reference_logits(tensors, images, case)
    model = load_checkpoint(source, **CASES[case][0])
    assert relative_error(expected, infer(model, images)) < 1e-6
    # Loaded as it stands, silently, it is another network: that is why the arguments are there.
    assert relative_error(expected, infer(load_checkpoint(source), images)) > 1e-3
    deployed = reparameterize(model)
    assert relative_error(expected, infer(deployed, images)) < 1e-6
    wanted = Adaptation(**CASES[case][0])
    assert recover(model).architecture.adaptation == wanted
    assert recover(deployed).architecture.adaptation == replace(wanted, epsilon=1e-5)

    kept = load_model(save_model(model, tmp_path / "model.keras"))
    assert recover(kept).architecture.adaptation == wanted
    # With another classifier it is built anew, as what it is.
    retrained = load_checkpoint(tmp_path / "model.keras", num_classes=3)
    assert recover(retrained).architecture.adaptation == wanted


@every_case
def test_built_by_arguments(case: str) -> None:
    model = small_network(**CASES[case][0])
    assert recover(model).architecture.adaptation == Adaptation(**CASES[case][0])


def test_no_branch_comes_with_a_stride_that_went(tmp_path: Path) -> None:
    """Stages 2 to 4 are equally wide: their first blocks could have identity branches now, which no weights are for."""
    shape: dict[str, Any] = {"num_blocks": [1, 1, 2, 1], "width_multiplier": [0.125, 0.125, 0.0625, 0.03125]}
    strided = trained_like(RepVGG(**shape, num_classes=4))
    path = save_checkpoint(strided, tmp_path / "strided.pth")
    dilated = load_checkpoint(path, output_stride=8)
    assert [spec.shape.keeps_shape for spec in recover(dilated).architecture.blocks()] == [
        False,
        False,
        False,
        False,
        True,
        False,
    ]
    assert infer(dilated, random_images((1, 32, 32, 3))).shape == (1, 4)
    assert len(dilated.weights) == len(strided.weights)


def test_variants_keep_their_names(tmp_path: Path) -> None:
    model = create_model("RepVGG-A0", 3, (32, 32, 3), stem_strides=1, output_stride=8)
    assert get_metadata(model).variant == "RepVGG-A0"
    # An eighth of the image, whatever the stem does.
    assert model.get_layer("stage4_block0").output.shape[1:3] == (4, 4)
    path = save_checkpoint(model, tmp_path / "a0.pth")
    again = create_model("RepVGG-A0", 3, weights=path, output_stride=16, epsilon=1e-3)
    assert recover(again).architecture.adaptation == Adaptation(output_stride=16, epsilon=1e-3)
    architecture = get_variant("RepVGG-B1g2").architecture
    found = find_variant(replace(architecture, adaptation=Adaptation(stem_strides=1)))
    assert found is not None
    assert found.name == "RepVGG-B1g2"


def test_cost_of_a_dilated_network() -> None:
    plain = Architecture((1, 1, 1, 1), (0.125,) * 4)
    dilated = replace(plain, adaptation=Adaptation(output_stride=8))
    # By hand: 3, then 2 more steps of 2, 4, 8 and 16 pixels; dilated, of 2, 4, 2 x 8 and 4 x 8.
    assert count_cost(plain, 10, (64, 64)).receptive_field == 3 + 4 + 8 + 16 + 32
    assert count_cost(dilated, 10, (64, 64)).receptive_field == 3 + 4 + 8 + 32 + 64
    assert [block.output_size[0] for block in count_cost(dilated, 10, (64, 64)).blocks] == [32, 16, 8, 8, 8]
    assert count_cost(dilated, 10, (64, 64)).deploy_parameters == count_cost(plain, 10, (64, 64)).deploy_parameters


def test_saved_for_a_program_with_another_epsilon(tmp_path: Path) -> None:
    model = trained_like(small_network(epsilon=1e-3))
    images = random_images((2, 40, 40, 3))
    expected = infer(model, images)
    with pytest.raises(
        InputError, match=r"have an epsilon of 0.001, and a checkpoint does not say so\. Pass epsilon=0.001"
    ):
        save_checkpoint(model, tmp_path / "refused.pth")
    same = save_checkpoint(model, tmp_path / "same.pth", epsilon=1e-3)
    assert relative_error(expected, infer(load_checkpoint(same, epsilon=1e-3), images)) == 0
    # The variances make up for it, so a program with PyTorch's default computes the same.
    default = save_checkpoint(model, tmp_path / "default.pth", epsilon=1e-5)
    assert relative_error(expected, infer(load_checkpoint(default), images)) < 1e-6
    with pytest.raises(InputError, match="which cannot make up for an epsilon that is larger"):
        save_checkpoint(model, tmp_path / "refused.pth", epsilon=0.9)
    assert not (tmp_path / "refused.pth").exists()


def test_saving_tells_what_a_checkpoint_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "repvgg"):
        save_checkpoint(small_network(stem_strides=1, output_stride=8), tmp_path / "file.pth")
    assert "does not tell stem_strides=1, output_stride=8" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stem_strides": 3}, r"`stem_strides` is 1 or 2\. Received: 3\."),
        ({"output_stride": 4}, r"`output_stride` is one of 8, 16, 32\. Received: 4\."),
        ({"epsilon": 0.0}, r"`epsilon` is above 0 and below 1"),
    ],
)
def test_values_that_make_no_network(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_checkpoint(REFERENCE / "official_train.pth", **options)
