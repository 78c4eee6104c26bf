"""State dicts with more around a RepVGG: prefixes of all names, other parts beside it, inserted normalizations."""

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Array, infer, relative_error
from repvgg.base.errors import CheckpointError
from repvgg.checkpoints import describe_checkpoint, load_checkpoint, save_checkpoint
from repvgg.checkpoints.parts import find_part
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.torch_format.writer import write_torch
from repvgg.models.metadata import get_metadata
from sampling import sampled

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"
LIMIT = 1e-6


def tensors_of(file: str) -> dict[str, Array]:
    return {name: np.array(tensor) for name, tensor in read_tensors(REFERENCE / file).tensors.items()}


def prefixed(tensors: dict[str, Array], prefix: str) -> dict[str, Array]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def write(tree: dict[str, Any], path: Path) -> Path:
    write_torch(tree, path)
    return path


def assert_is_the_network(model: Any, file: str = "official_train") -> None:
    expected = np.load(REFERENCE / f"{file}.npz")
    assert relative_error(expected["logits"], infer(model, expected["images_nhwc"])) < LIMIT


PREFIXES = ["model.", "net.", "backbone.", "timm_model.", "module.model.encoder."]
NECK: dict[str, Array] = {
    "neck.lateral.weight": np.ones((4, 4), np.float32),
    "neck.lateral.bias": np.ones(4, np.float32),
}
HEAD: dict[str, Array] = {"bbox_head.weight": np.ones(3, np.float32)}


@pytest.mark.parametrize(
    ("file", "prefix"),
    sampled(
        itertools.product(["official_train.pth", "timm_train.safetensors"], PREFIXES),
        [("official_train.pth", "model."), ("timm_train.safetensors", "module.model.encoder.")],
    ),
)
def test_what_all_names_begin_with_goes_off(prefix: str, file: str, tmp_path: Path) -> None:
    path = write(prefixed(tensors_of(file), prefix), tmp_path / "file.pth")
    assert_is_the_network(load_checkpoint(path), file.partition(".")[0])
    assert describe_checkpoint(path).prefix == prefix


def test_an_averaged_model(tmp_path: Path) -> None:
    """torch.optim.swa_utils.AveragedModel counts beside `module.`."""
    averaged = {"n_averaged": np.asarray(7), **prefixed(tensors_of("official_train.pth"), "module.model.")}
    path = write(averaged, tmp_path / "file.pth")
    assert_is_the_network(load_checkpoint(path))
    assert describe_checkpoint(path).prefix == "module.model."


def test_an_averaged_model_beside_another(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(array) for name, array in tensors_of("official_train.pth").items()}
    other = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    averaged = {"n_averaged": torch.tensor(7), **{f"module.{name}": tensor for name, tensor in tensors.items()}}
    torch.save({"model": other, "model_ema": averaged, "epoch": 3}, tmp_path / "file.pth")
    assert_is_the_network(load_checkpoint(tmp_path / "file.pth", entry="model_ema"))


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_lightning(wrapper: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = {f"model.{name}": torch.tensor(array) for name, array in tensors_of("official_train.pth").items()}
    torch.save({wrapper: tensors, "epoch": 3}, tmp_path / "file.ckpt")
    assert_is_the_network(load_checkpoint(tmp_path / "file.ckpt"))


def test_a_detector(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backbone = {name: tensor for name, tensor in tensors_of("official_train.pth").items() if "linear" not in name}
    path = write({**prefixed(backbone, "backbone."), **NECK, **HEAD}, tmp_path / "file.pth")
    advice = (
        rf"holds more than a RepVGG\. prefix='backbone\.' \(--prefix backbone\.\) takes {len(backbone)} tensors, and "
        r"leaves neck \(2 tensors\), bbox_head \(1 tensor\)\."
    )
    with pytest.raises(CheckpointError, match=advice):
        load_checkpoint(path)
    with caplog.at_level(logging.WARNING, "repvgg"):
        features = infer(
            load_checkpoint(path, prefix="backbone"), np.load(REFERENCE / "official_train.npz")["images_nhwc"]
        )
    assert list(features) == [f"stage{stage}" for stage in range(5)]
    assert "file.pth: left beside 'backbone.': neck (2 tensors), bbox_head (1 tensor)." in caplog.text
    assert dict(describe_checkpoint(path, prefix="backbone.").left) == {"neck": 2, "bbox_head": 1}
    with pytest.raises(CheckpointError, match=r"No RepVGG is in it under 'neck\.'\. prefix='backbone\.'"):
        load_checkpoint(path, prefix="neck.")


@pytest.mark.parametrize("beside", [{}, {**NECK, **HEAD}], ids=["alone", "in a detector"])
def test_openmmlab_names_with_and_without_their_own_prefix(beside: dict[str, Array], tmp_path: Path) -> None:
    """`backbone.` belongs to mmpretrain's names, and a backbone that is saved alone goes without it."""
    save_checkpoint(load_checkpoint(REFERENCE / "official_train.pth"), tmp_path / "mm.pth", "mmpretrain")
    tensors = {name: np.array(tensor) for name, tensor in read_tensors(tmp_path / "mm.pth").tensors.items()}
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith("head.")}
    alone = {name.removeprefix("backbone."): tensor for name, tensor in backbone.items()}
    assert describe_checkpoint(write(alone, tmp_path / "alone.pth")).dialect == "mmpretrain"
    path = write({**prefixed(alone, "model.backbone."), **prefixed(beside, "model.")}, tmp_path / "file.pth")
    if beside:
        with pytest.raises(CheckpointError, match=r"leaves model\.neck \(2 tensors\), model\.bbox_head"):
            load_checkpoint(path)
        found = describe_checkpoint(path, prefix="model.backbone.")
    else:
        found = describe_checkpoint(path)
    assert (found.dialect, found.prefix) == ("mmpretrain", "model.backbone." if beside else "model.")


def test_a_whole_mmpretrain_network_needs_no_prefix() -> None:
    names = ["backbone.stem.branch_3x3.conv.weight", "head.fc.weight"]
    part = find_part(names)
    assert (part.dialect.name, part.prefix, dict(part.left)) == ("mmpretrain", "", {})


def test_two_networks_in_one_state_dict(tmp_path: Path) -> None:
    tensors = tensors_of("official_train.pth")
    path = write({**prefixed(tensors, "student."), **prefixed(tensors, "teacher.")}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"more than one RepVGG\. prefix='student\.' .*; prefix='teacher\.'"):
        load_checkpoint(path)
    assert_is_the_network(load_checkpoint(path, prefix="teacher."))


def test_another_network_under_a_prefix(tmp_path: Path) -> None:
    path = write({"model.layer1.0.conv1.weight": np.ones((4, 4, 3, 3), np.float32)}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"Is it the checkpoint of another network\?"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"under 'model\.'\. None is in it under any other prefix\."):
        load_checkpoint(path, prefix="model.")


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_normalizations_that_insert_bn_put_in(epsilon: float, tmp_path: Path, rng: np.random.Generator) -> None:
    """As the official tool makes them: gamma is the deviation and beta the old bias plus the mean."""
    tensors: dict[str, Array] = {}
    for name, tensor in tensors_of("official_deploy.pth").items():
        if name.endswith("rbr_reparam.weight"):
            block, width = name.removesuffix("weight"), len(tensor)
            mean, variance = rng.standard_normal(width), rng.uniform(0.3, 3, width)
            bias = tensors_of("official_deploy.pth")[f"{block}bias"]
            made = {
                "conv.weight": tensor,
                "bn.weight": np.sqrt(variance + epsilon),
                "bn.bias": bias + mean,
                "bn.running_mean": mean,
                "bn.running_var": variance,
            }
            tensors.update({block + leaf: value.astype(np.float32) for leaf, value in made.items()})
            tensors[f"{block}bn.num_batches_tracked"] = np.asarray(0)
        elif not name.endswith("rbr_reparam.bias"):
            tensors[name] = tensor
    model = load_checkpoint(write(tensors, tmp_path / "file.pth"), epsilon=epsilon)
    assert get_metadata(model).form == "deploy"
    assert "9 batch normalizations folded" in str(get_metadata(model).source)
    assert_is_the_network(model, "official_deploy")
