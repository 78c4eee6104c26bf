"""RepOpt-VGG's checkpoints, against its authors' code. `golden/make_repopt.py` made the file."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import repvgg
from helpers import Array, assert_same_values, infer, relative_error
from repvgg.models.recover import recover

GOLDEN = Path(__file__).parents[1] / "golden" / "repopt.npz"
BLOCKS = {"target": "RepOptVGGBlock", "search": "LinearAdditionBlock"}


def tensors_of(name: str) -> dict[str, Array]:
    with np.load(GOLDEN) as arrays:
        return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays if key.startswith(f"{name}/")}


@pytest.mark.parametrize("name", BLOCKS)
def test_it_loads_converts_and_answers_as_the_authors_do(tmp_path: Path, name: str) -> None:
    tensors = tensors_of(name)
    save_file(tensors, tmp_path / "file.safetensors")
    with np.load(GOLDEN) as arrays:
        images, logits = arrays["images"], arrays[f"{name}_logits"]
    model = repvgg.load_checkpoint(tmp_path / "file.safetensors", dtype="float64")
    assert relative_error(logits, infer(model, images)) < 1e-12
    assert recover(model).architecture.block == BLOCKS[name]
    assert relative_error(logits, infer(repvgg.reparameterize(model), images)) < 1e-12


@pytest.mark.backends
@pytest.mark.parametrize("name", BLOCKS)
def test_in_float32(tmp_path: Path, name: str) -> None:
    save_file(tensors_of(name), tmp_path / "file.safetensors")
    with np.load(GOLDEN) as arrays:
        images, logits = arrays["images"], arrays[f"{name}_logits"]
    single = repvgg.load_checkpoint(tmp_path / "file.safetensors", dtype="float32")
    assert relative_error(logits, infer(repvgg.reparameterize(single), images.astype("float32"))) < 2e-5


@pytest.mark.parametrize("dialect", ["official", "repopt"])
@pytest.mark.parametrize("name", BLOCKS)
def test_it_is_written_as_the_authors_read_it(tmp_path: Path, name: str, dialect: str) -> None:
    tensors = tensors_of(name)
    save_file(tensors, tmp_path / "file.safetensors")
    model = repvgg.load_checkpoint(tmp_path / "file.safetensors", dtype="float64")
    written = load_file(repvgg.save_checkpoint(model, tmp_path / "again.safetensors", dialect))
    again = {key: tensor for key, tensor in written.items() if not key.endswith("num_batches_tracked")}
    assert again.keys() == tensors.keys()
    assert_same_values([tensors[key] for key in again], list(again.values()))


@pytest.mark.parametrize(
    ("size", "target", "search", "millions", "top1"),
    [
        ("A0", 8_313_880, 9_106_136, None, None),
        ("B1", 51_841_832, 57_405_672, 51.8, 78.62),
        ("B2", 80_330_536, 89_010_696, 80.3, 79.68),
        ("L1", 76_037_928, 84_308_712, 76.0, 79.82),
        ("L2", 118_132_776, 131_036_296, 118.1, 80.47),
    ],
)
def test_published_size_and_accuracy(
    size: str, target: int, search: int, millions: float | None, top1: float | None
) -> None:
    """Parameters as the authors' modules have them, and their table: https://github.com/DingXiaoH/RepOptimizers."""
    variant, searched = (repvgg.get_variant(f"RepOpt-VGG-{size}{suffix}") for suffix in ("", "-search"))
    cost = variant.cost()
    assert (cost.train_parameters, searched.cost().train_parameters) == (target, search)
    # A normalization has two numbers for each channel, the bias that it folds into one.
    assert cost.train_parameters - cost.deploy_parameters == sum(block.spec.filters for block in cost.blocks)
    assert cost.train_macs == cost.deploy_macs == searched.cost().deploy_macs
    if millions is not None:
        assert round(cost.deploy_parameters / 1e6, 1) == millions
    assert variant.published.top1 == top1
