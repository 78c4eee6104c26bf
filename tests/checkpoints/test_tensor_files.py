"""Finding the state dict in a checkpoint file: kinds of file, wrappers, prefixes, counters."""

import json
from pathlib import Path

import crafted
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from repvgg.base.errors import CheckpointError, UnknownNameError
from repvgg.checkpoints.tensor_files import WRAPPERS, read_tensors
from repvgg.checkpoints.torch_format.writer import write_torch

_GOLDEN = Path(__file__).parents[1] / "golden" / "reference"
_ONES = crafted.tensor(shape=crafted.integers(2), strides=crafted.integers(1))


def _nested(**entries: bytes) -> bytes:
    return crafted.state_dict(**entries)[2:-1]


def _weights(offset: int = 0, prefix: str = "") -> bytes:
    """A state dict of one tensor, whose first element is `offset`."""
    value = crafted.tensor(None, crafted.integer(offset), crafted.integers(1), crafted.integers(1))
    return _nested(**{f"{prefix}linear.bias": value})


def _file(folder: Path, **entries: bytes) -> Path:
    path = folder / "checkpoint.pth"
    path.write_bytes(crafted.torch_zip(crafted.state_dict(**entries)))
    return path


def test_the_kind_is_told_from_the_content(tmp_path: Path) -> None:
    contents = {"torch-zip": crafted.torch_zip(), "torch-legacy": crafted.legacy()}
    contents["safetensors"] = crafted.GOOD_SAFETENSORS
    for container, content in contents.items():
        for name in ("model.pth", "model.safetensors", "model"):
            (tmp_path / name).write_bytes(content)
            file = read_tensors(tmp_path / name)
            assert file.container == container
            np.testing.assert_array_equal(file.tensors["weight"], [[0, 1, 2], [3, 4, 5]])
            assert (file.wrapper, file.prefix, file.passed_over, file.beside) == ((), "", (), ())


def test_a_safetensors_file_that_begins_like_a_pickle(tmp_path: Path) -> None:
    # The file begins with the length of its header, 0x180 here, and so with a pickle's first byte.
    header = json.dumps({"weight": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}).ljust(0x180).encode()
    path = tmp_path / "file"
    path.write_bytes(crafted.safetensors(header))
    assert path.read_bytes()[0] == 0x80
    assert read_tensors(path).container == "safetensors"


def test_safetensors_types_and_notes(tmp_path: Path) -> None:
    tensors = {
        "half": np.arange(3, dtype=np.float16),
        "brain": np.arange(3).astype(ml_dtypes.bfloat16),
        "long": np.arange(3),
        "number": np.array(2.5, np.float32),
        "flag": np.array([True, False]),
    }
    save_file(tensors, tmp_path / "file.safetensors", metadata={"made by": "a test"})
    file = read_tensors(tmp_path / "file.safetensors")
    assert file.metadata == {"made by": "a test"}
    assert set(file.tensors) == set(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(file.tensors[name], array, strict=True)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_opened(tmp_path: Path, wrapper: str) -> None:
    file = read_tensors(_file(tmp_path, epoch=b"K\x03", **{wrapper: _weights()}))
    assert (file.wrapper, file.beside, file.passed_over) == ((wrapper,), ("epoch",), ())
    assert list(file.tensors) == ["linear.bias"]


def test_the_order_of_the_table() -> None:
    # Other code and users' scripts rely on which weights a file with several gives: averaged ones come last.
    assert WRAPPERS == ("state_dict", "model", "module", "model_ema", "state_dict_ema", "ema")


def test_wrappers_are_preferred_in_the_order_of_the_table(tmp_path: Path) -> None:
    # Written in the opposite order: the table decides, not the file.
    entries = {name: _weights(place) for place, name in reversed(list(enumerate(WRAPPERS)))}
    for place, name in enumerate(WRAPPERS):
        file = read_tensors(_file(tmp_path, **entries))
        assert file.wrapper == (name,)
        assert file.passed_over == WRAPPERS[place + 1 :]
        assert file.tensors["linear.bias"] == place
        del entries[name]


def test_a_plain_state_dict_comes_before_its_entries_names(tmp_path: Path) -> None:
    file = read_tensors(_file(tmp_path, model=_ONES, ema=_ONES))
    assert (file.wrapper, list(file.tensors)) == ((), ["model", "ema"])


def test_an_entry_can_be_chosen(tmp_path: Path) -> None:
    path = _file(tmp_path, model=_weights(1), ema=_nested(module=_weights(2)), best=_weights(3), epoch=b"K\x03")
    assert read_tensors(path).wrapper == ("model",)
    averaged = read_tensors(path, entry="ema")
    assert (averaged.wrapper, averaged.passed_over) == (("ema", "module"), ("model",))
    assert averaged.tensors["linear.bias"] == 2
    assert read_tensors(path, entry="best").tensors["linear.bias"] == 3
    with pytest.raises(UnknownNameError, match="Did you mean model"):
        read_tensors(path, entry="modell")
    with pytest.raises(CheckpointError, match="entry 'epoch' is a int"):
        read_tensors(path, entry="epoch")
    with pytest.raises(UnknownNameError):
        read_tensors(_file(tmp_path, weight=_ONES), entry="model")
    (tmp_path / "s").write_bytes(crafted.GOOD_SAFETENSORS)
    with pytest.raises(CheckpointError, match="has no entries"):
        read_tensors(tmp_path / "s", entry="ema")


def test_wrapping_has_an_end(tmp_path: Path) -> None:
    three = _nested(state_dict=_nested(module=_weights()))
    assert read_tensors(_file(tmp_path, model=three)).wrapper == ("model", "state_dict", "module")
    with pytest.raises(CheckpointError, match="more than 3 times"):
        read_tensors(_file(tmp_path, ema=_nested(model=three)))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module.module."])
def test_prefixes_are_taken_off(tmp_path: Path, prefix: str) -> None:
    write_torch(
        {f"{prefix}linear.bias": np.ones(2), f"{prefix}bn.num_batches_tracked": np.array(7)}, tmp_path / "file.pth"
    )
    file = read_tensors(tmp_path / "file.pth")
    assert file.prefix == prefix
    assert list(file.tensors) == ["linear.bias"]


def test_a_prefix_that_not_all_names_share_stays(tmp_path: Path) -> None:
    names = ["module.a", "b"]
    write_torch({name: np.ones(1) for name in names}, tmp_path / "file.pth")
    file = read_tensors(tmp_path / "file.pth")
    assert (file.prefix, list(file.tensors)) == ("", names)


def test_only_whole_counter_names_are_dropped(tmp_path: Path) -> None:
    names = ["my_num_batches_tracked", "num_batches_tracked.bias"]
    write_torch({name: np.ones(1) for name in [*names, "num_batches_tracked"]}, tmp_path / "file.pth")
    file = read_tensors(tmp_path / "file.pth")
    assert list(file.tensors) == names


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "contains no tensors"),
        ({"weight": _ONES, "epoch": b"K\x03"}, "Among its tensors are entries that are not tensors: epoch"),
        ({"epoch": b"K\x03", "optimizer": b"}"}, "contains no state dict. Its entries are: epoch, optimizer"),
        ({"model": b"}"}, "contains no tensors"),
        ({"model": _nested(a=b"K\x03")}, "contains no state dict. Its entries are: a"),
        ({"num_batches_tracked": _ONES}, "contains no tensors"),
    ],
)
def test_a_file_without_a_state_dict(tmp_path: Path, entries: dict[str, bytes], message: str) -> None:
    path = _file(tmp_path, **entries)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_tensors(path)
    assert str(path) in str(caught.value)


def test_content_that_is_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    path.write_bytes(crafted.torch_zip(b"\x80\x02](" + _ONES + b"e."))
    with pytest.raises(CheckpointError, match="content is a list; a dictionary of named tensors was expected"):
        read_tensors(path)


@pytest.mark.skipif(not _GOLDEN.is_dir(), reason="the golden files are not in this checkout")
def test_golden_files() -> None:
    names = {row["file"] for row in json.loads((_GOLDEN / "index.json").read_text())}
    files = {name: read_tensors(_GOLDEN / name) for name in sorted(names)}
    for name, file in files.items():
        expected = "torch-legacy" if "legacy" in name else "torch-zip" if name.endswith(".pth") else "safetensors"
        assert file.container == expected
        assert all(array.dtype == np.float32 for array in file.tensors.values())
        assert not any(name.endswith("num_batches_tracked") for name in file.tensors)
    wrapped = files["official_train_ddp.pth"]
    assert (wrapped.wrapper, wrapped.prefix, wrapped.beside) == (("model",), "module.", ("epoch", "max_accuracy"))
    assert list(wrapped.tensors) == list(files["official_train.pth"].tensors)
