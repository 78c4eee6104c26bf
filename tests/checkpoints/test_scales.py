"""Scales in files: the authors', this package's own, and networks that have some."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import repvgg
from repvgg.base.errors import CheckpointError, FileError, InputError, OutputExistsError
from repvgg.checkpoints.scales import load_scales, require_fitting, save_scales, scaled_blocks, scales_of
from repvgg.checkpoints.torch_format.writer import write_torch

AUTHORS = {
    "stage0.scale_conv.weight": 2.0,
    "stage0.scale_1x1.weight": 3.0,
    "stage2.10.scale_identity.weight": -0.5,
}


def network(block: str = "LinearAdditionBlock") -> object:
    return repvgg.RepVGG([1, 2, 1, 1], [0.125, 0.0625, 0.03125, 0.03125], num_classes=3, block=block)


@pytest.mark.parametrize("container", ["pth", "safetensors"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_files(container: str, prefix: str, tmp_path: Path) -> None:
    tensors = {f"{prefix}{name}": np.full(4, value, np.float32) for name, value in AUTHORS.items()}
    path = tmp_path / f"scales.{container}"
    if container == "pth":
        write_torch(tensors, path)
    else:
        save_file(tensors, path)
    blocks = load_scales(path).blocks
    found = {f"{block}.{name}": values for block, factors in blocks.items() for name, values in factors.items()}
    assert {name: values.tolist() for name, values in found.items()} == {
        "stage0.scale_conv": [2.0] * 4,
        "stage0.scale_1x1": [3.0] * 4,
        "stage2_block10.scale_identity": [-0.5] * 4,
    }


def test_ours_is_theirs_and_says_where_it_is_from(tmp_path: Path) -> None:
    scales = scales_of(network(), "somewhere")
    path = save_scales(scales, tmp_path / "scales.safetensors")
    assert {"stage0.scale_conv.weight", "stage2.1.scale_identity.weight"} <= load_file(path).keys()
    again = load_scales(path)
    assert (again.source, again.digest()) == ("somewhere", scales.digest())
    with pytest.raises(OutputExistsError):
        save_scales(scales, path)
    with pytest.raises(InputError, match=r"Scales are saved as \.safetensors"):
        save_scales(scales, tmp_path / "scales.json")


@pytest.mark.parametrize("suffix", ["keras", "pth"])
def test_a_search_network_has_them(suffix: str, tmp_path: Path) -> None:
    model = network()
    model.get_layer("stage2_block1").identity.scale.assign(np.full(8, 0.25))  # type: ignore[attr-defined]
    path = tmp_path / f"search.{suffix}"
    if suffix == "keras":
        repvgg.save_model(model, path)
    else:
        repvgg.save_checkpoint(model, path)
    scales = load_scales(path)
    assert scales.digest() == scales_of(model).digest()
    assert scales.blocks["stage2_block1"]["scale_identity"].tolist() == [0.25] * 8


def test_a_file_of_a_network_of_ones_own_keeps_its_names(tmp_path: Path) -> None:
    import keras

    from repvgg.blocks import BLOCKS

    inputs = keras.Input((8, 8, 4))
    search, plain = (
        keras.Model(inputs, BLOCKS[kind](4, name="head.first")(inputs))
        for kind in ("LinearAdditionBlock", "RepOptVGGBlock")
    )
    path = save_scales(scales_of(search), tmp_path / "scales.safetensors")
    assert "head.first.scale_conv.weight" in load_file(path)
    ((block, factors),) = scaled_blocks(plain, load_scales(path))
    assert block.name == "head.first"
    assert set(factors) == {"conv3x3.scale1.scale", "conv1x1.scale1.scale", "identity.scale"}


def test_what_does_not_fit_is_listed() -> None:
    scales = scales_of(network())
    wider = repvgg.RepVGG([1, 1, 1, 2], [0.25, 0.0625, 0.03125, 0.03125], num_classes=3, block="RepOptVGGBlock")
    with pytest.raises(InputError) as caught:
        scaled_blocks(wider, scales)
    message = str(caught.value)
    assert "missing: stage4_block1.scale_conv, stage4_block1.scale_1x1, stage4_block1.scale_identity;" in message
    assert "of other widths: stage0.scale_conv (8 channels, 16 wanted), " in message
    assert "without a place: stage2_block1.scale_conv, " in message
    for name in ("RepOpt-VGG-A0", "RepVGG-A0"):
        with pytest.raises(InputError, match=f"'{name}'"):
            require_fitting(scales, repvgg.get_variant(name).architecture, name)


def test_no_scales(tmp_path: Path) -> None:
    repvgg.save_checkpoint(network("RepOptVGGBlock"), tmp_path / "plain.pth")
    with pytest.raises(CheckpointError, match="There are no scales in"):
        load_scales(tmp_path / "plain.pth")
    repvgg.save_model(network("RepOptVGGBlock"), tmp_path / "plain.keras")
    with pytest.raises(CheckpointError, match="'repvgg' has no scales"):
        load_scales(tmp_path / "plain.keras")
    with pytest.raises(CheckpointError, match="a folder without a run in it"):
        load_scales(tmp_path)
    with pytest.raises(FileError, match="does not exist"):
        load_scales(tmp_path / "none.pth")
