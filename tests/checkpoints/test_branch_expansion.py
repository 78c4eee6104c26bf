"""From deploy form to a training form of the same function."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, network

from helpers import Array, infer, random_images, relative_error, to_numpy, trained_like, values_of
from repvgg import checkpoints
from repvgg.base.errors import InputError
from repvgg.checkpoints import load_checkpoint, recalibrate_batch_norm, save_checkpoint
from repvgg.conversion import reparameterize
from repvgg.core import fold
from repvgg.models.metadata import get_metadata
from repvgg.models.recover import recover
from sampling import sampled

IMAGES = random_images((4, 40, 40, 3))


def _expanded(tmp_path: Path, name: str, **options: Any) -> tuple[Any, Any]:
    deployed = trained_like(network(name, deploy=True))
    path = save_checkpoint(deployed, tmp_path / "deploy.pth")
    return deployed, load_checkpoint(path, from_deploy="expand", **options)


@pytest.mark.backends
@pytest.mark.parametrize("name", list(NETWORKS))
def test_the_same_function(tmp_path: Path, name: str) -> None:
    deployed, model = _expanded(tmp_path, name)
    assert (recover(model).form, get_metadata(model).form) == ("training", "training")
    assert "expanded" in str(get_metadata(model).source)
    assert relative_error(infer(deployed, IMAGES), infer(model, IMAGES)) < 1e-5
    assert relative_error(infer(deployed, IMAGES), infer(reparameterize(model), IMAGES)) < 1e-5


@pytest.mark.parametrize("name", ["plain", "grouped", "attention"])
def test_folding_gives_the_kernels_back(tmp_path: Path, name: str) -> None:
    deployed, model = _expanded(tmp_path, name)
    for block_name, path in recover(deployed).units.items():
        linear: fold.Linear = model.get_layer(block_name).folded()
        # Rounding of the stored branches: 1x1 and identity kernels are up to some ten times larger than the weights.
        np.testing.assert_allclose(linear.kernel, to_numpy(path.convolution.kernel), atol=3e-7)
        np.testing.assert_allclose(linear.bias, to_numpy(path.convolution.bias), atol=1e-7)


def test_in_double_precision_to_its_last_digits(tmp_path: Path) -> None:
    deployed, model = _expanded(tmp_path, "grouped", dtype="float64")
    wide = trained_like(network("grouped", deploy=True, dtype="float64"))
    for target, value in zip(wide.weights, values_of(deployed), strict=True):
        target.assign(value)
    assert relative_error(infer(wide, IMAGES.astype("float64")), infer(model, IMAGES.astype("float64"))) < 1e-6


def test_half_precision_gets_branches_of_32_bits(tmp_path: Path) -> None:
    deployed = network("plain", deploy=True, dtype="bfloat16")
    path = save_checkpoint(deployed, tmp_path / "deploy.safetensors", "timm")
    plain, model = load_checkpoint(path), load_checkpoint(path, form="training", from_deploy="expand")
    assert relative_error(infer(plain, IMAGES), infer(model, IMAGES)) < 1e-5


def test_branches_are_fresh_and_different(tmp_path: Path) -> None:
    _, model = _expanded(tmp_path, "plain")
    kernels: list[Array] = []
    for unit in recover(model).units.values():
        kernel = to_numpy(unit.conv1x1.kernel)
        assert 0 < np.abs(kernel).max() <= kernel.shape[2] ** -0.5
        kernels.append(kernel)
        if unit.identity is not None:
            assert (to_numpy(unit.identity.gamma) == 1).all()
    assert not np.array_equal(kernels[1][..., :8], kernels[2][..., :8, :8])
    assert [values.tobytes() for values in values_of(model)] == [
        values.tobytes() for values in values_of(load_checkpoint(tmp_path / "deploy.pth", from_deploy="expand"))
    ]


def test_a_training_form_is_not_touched(tmp_path: Path) -> None:
    original = network("plain")
    path = save_checkpoint(original, tmp_path / "file.pth")
    model = load_checkpoint(path, form="training", from_deploy="expand")
    for before, after in zip(values_of(original), values_of(model), strict=True):
        np.testing.assert_array_equal(before, after)


def test_with_another_head(tmp_path: Path) -> None:
    deployed, model = _expanded(tmp_path, "plain", num_classes=3)
    assert model.output_shape == (None, 3)
    block = model.get_layer("stage4_block0")
    np.testing.assert_allclose(block.folded().kernel, to_numpy(deployed.get_layer("stage4_block0").kernel), atol=3e-7)


@pytest.mark.backends
@pytest.mark.parametrize("name", sampled(["plain", "grouped", "plus"], ["grouped"]))
def test_recalibrated_statistics_carry_over_to_training_mode(tmp_path: Path, name: str) -> None:
    deployed, model = _expanded(tmp_path, name)
    expected = infer(deployed, IMAGES)
    in_training = to_numpy(_detached(model(IMAGES, training=True)))
    assert relative_error(expected, in_training) > 0.05  # otherwise there would be nothing to do
    _, model = _expanded(tmp_path / "again", name)
    recalibrate_batch_norm(model, IMAGES)
    assert relative_error(expected, infer(model, IMAGES)) < 1e-5
    assert relative_error(expected, to_numpy(_detached(model(IMAGES, training=True)))) < 1e-4


def _detached(tensor: Any) -> Any:
    return getattr(tensor, "detach", lambda: tensor)()


def test_nothing_to_recalibrate() -> None:
    with pytest.raises(InputError, match="no block in training form"):
        recalibrate_batch_norm(network("plain", deploy=True), IMAGES)


def test_former_names_stay_valid(tmp_path: Path) -> None:
    _, model = _expanded(tmp_path, "plain")
    former = load_checkpoint(tmp_path / "deploy.pth", from_deploy="unfold")  # type: ignore[arg-type]
    for value, same in zip(values_of(model), values_of(former), strict=True):
        np.testing.assert_array_equal(value, same)
    assert checkpoints.settle_statistics is recalibrate_batch_norm
    assert "settle_statistics" not in dir(checkpoints)
