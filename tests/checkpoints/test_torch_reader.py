"""Reading what torch.save writes: against torch itself where it is installed, against hand-made pickles otherwise."""

import argparse
import collections
import json
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import crafted
import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from repvgg.base.errors import CheckpointError, FileError
from repvgg.checkpoints.torch_format.element_types import ELEMENT_TYPES
from repvgg.checkpoints.torch_format.pickle_names import InertRecord
from repvgg.checkpoints.torch_format.reader import read_torch

_GOLDEN = Path(__file__).parents[1] / "golden" / "reference"
_FORMATS = {
    "zip": {},
    "legacy": {"_use_new_zipfile_serialization": False},
    "zip of protocol 4": {"pickle_protocol": 4},
    "legacy of protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}
every_format = pytest.mark.parametrize("options", _FORMATS.values(), ids=_FORMATS)


@pytest.fixture
def torch() -> ModuleType:
    module: ModuleType = pytest.importorskip("torch")
    return module


def _raw(tensor: Any) -> bytes:
    torch = pytest.importorskip("torch")
    raw: bytes = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return raw


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@every_format
@pytest.mark.parametrize("row", ELEMENT_TYPES, ids=lambda row: row.torch_name)
def test_every_element_type(torch: ModuleType, tmp_path: Path, options: dict[str, Any], row: Any) -> None:
    tensor = torch.tensor([[0, 1, 2], [3, 100, 5]]).to(getattr(torch, row.torch_name))
    torch.save({"weight": tensor}, tmp_path / "file.pth", **options)
    array = read_torch(tmp_path / "file.pth")["weight"]
    assert (array.dtype, array.shape) == (row.numpy, (2, 3))
    assert array.tobytes() == _raw(tensor)


@every_format
def test_views_share_their_storage(torch: ModuleType, tmp_path: Path, options: dict[str, Any]) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "base": base,
        "again": base,
        "part": base[1:, ::2],
        "turned": base.T,
        "row": torch.nn.Parameter(base[2]),
        "number": base[3, 5],
        "repeated": base[:, :1].expand(4, 5),
        "one row": base[1:2].as_strided((1, 3), (2**61, 1)),
        "empty": torch.zeros(0, 3),
        "alone": torch.ones(2),
    }
    torch.save(saved, tmp_path / "file.pth", **options)
    arrays = read_torch(tmp_path / "file.pth")
    for name, tensor in saved.items():
        np.testing.assert_array_equal(arrays[name], tensor.detach().numpy(), strict=True)
    assert np.shares_memory(arrays["base"], arrays["part"])
    assert not np.shares_memory(arrays["base"], arrays["alone"])
    # On the file itself: nothing was copied, and nothing can be written to it.
    assert not any(arrays[name].flags.owndata or arrays[name].flags.writeable for name in saved if name != "empty")


@every_format
def test_what_training_scripts_keep_beside_the_weights(
    torch: ModuleType, tmp_path: Path, options: dict[str, Any]
) -> None:
    saved = {
        "epoch": 3,
        "numbers": (0, -5, 255, 65535, 2**31, 2**40, -(2**70), 1.5, True, False, None),
        "text": "größe",
        "list": list(range(2500)),
        "nested": {"a": [{"b": (1, [2])}], 7: collections.OrderedDict(x=1)},
        "args": argparse.Namespace(lr=0.1, steps=[1, 2]),
        "best": np.float64(72.5),
        "count": np.int32(-4),
        "flag": np.bool_(True),
        "milestones": collections.Counter([30, 60, 30]),
        "size": torch.Size([2, 3]),
        "device": torch.device("cuda", 1),
        "dtype": torch.float16,
        "set": {5},
    }
    torch.save(saved, tmp_path / "file.pth", **options)
    tree = read_torch(tmp_path / "file.pth")
    assert tree == saved | {
        "args": InertRecord("argparse.Namespace", {"lr": 0.1, "steps": [1, 2]}),
        "device": "cuda:1",
        "dtype": "torch.float16",
        "set": [5],
    }
    assert [type(value) for value in tree["numbers"]] == [type(value) for value in saved["numbers"]]
    assert list(tree) == list(saved)


def test_settings_of_the_official_training_script(tmp_path: Path) -> None:
    # yacs pickles its CfgNode as a dictionary with attributes; yacs itself is not needed to read one.
    bookkeeping = b"}" + crafted.text("__immutable__") + b"\x88s"
    inner = b"h\x01)\x81" + crafted.text("EPOCHS") + b"Kxs" + bookkeeping + b"b"
    node = b"cyacs.config\nCfgNode\nq\x01)\x81(" + crafted.text("TRAIN") + inner + b"u" + bookkeeping + b"b"
    path = _write(tmp_path / "file.pth", crafted.torch_zip(crafted.state_dict(config=node)))
    settings = InertRecord("yacs.config.CfgNode", {"EPOCHS": 120})
    assert read_torch(path) == {"config": InertRecord("yacs.config.CfgNode", {"TRAIN": settings})}


def test_a_number_of_a_big_endian_machine(tmp_path: Path) -> None:
    order = b"(K\x03" + crafted.text(">") + b"NNNKKKKK\x00tb"
    kind = b"cnumpy\ndtype\n" + crafted.text("f8") + b"\x89\x88\x87R" + order
    raw = b"C\x08" + struct.pack(">d", 72.5)
    path = _write(
        tmp_path / "file.pth", crafted.torch_zip(b"\x80\x03cnumpy.core.multiarray\nscalar\n" + kind + raw + b"\x86R.")
    )
    assert read_torch(path) == 72.5


def test_a_part_of_a_storage_in_the_old_format(tmp_path: Path) -> None:
    view = crafted.group(crafted.text("1"), crafted.integer(2), crafted.integer(3))
    source = crafted.storage(
        b"ctorch.cuda\nFloatStorage\n", crafted.text("0"), crafted.text("cuda:0"), crafted.integer(6), view
    )
    part = crafted.tensor(source, crafted.integer(1), crafted.integers(2), crafted.integers(1))
    path = _write(tmp_path / "file.pth", crafted.legacy(crafted.state_dict(weight=part)))
    np.testing.assert_array_equal(read_torch(path)["weight"], [3, 4])
    beyond = crafted.tensor(source, crafted.integer(2), crafted.integers(2), crafted.integers(1))
    inside_the_root_only = _write(tmp_path / "beyond.pth", crafted.legacy(crafted.state_dict(weight=beyond)))
    with pytest.raises(CheckpointError, match="reaches to byte 16 of a storage of 12"):
        read_torch(inside_the_root_only)


def test_text_of_python_2(tmp_path: Path) -> None:
    source = crafted.storage(key=b"U\x010", location=b"U\x03cpu").replace(crafted.text("storage"), b"U\x07storage")
    pickle = b"\x80\x02}U\x06weight" + crafted.tensor(source) + b"s."
    path = _write(tmp_path / "file.pth", crafted.legacy(pickle, b"]U\x010a"))
    np.testing.assert_array_equal(read_torch(path)["weight"], [[0, 1, 2], [3, 4, 5]])


def test_unaligned_bfloat16_counts_right(tmp_path: Path) -> None:
    values = np.arange(6).astype(ml_dtypes.bfloat16)
    source = crafted.storage(b"ctorch\nBFloat16Storage\n")
    for padding in range(4):
        pickle = crafted.state_dict(**{"w" * (padding + 1): crafted.tensor(source)})
        path = _write(
            tmp_path / f"{padding}.pth", crafted.legacy(pickle, storages=struct.pack("<q", 6) + values.tobytes())
        )
        (array,) = read_torch(path).values()
        np.testing.assert_array_equal(array.astype(np.float32).reshape(-1), np.arange(6))


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    # torch.load reads such a file without a word.
    content = bytearray(crafted.torch_zip())
    content[content.index(crafted.SIX_FLOATS) + 9] ^= 1
    with pytest.raises(CheckpointError, match="'archive/data/0' does not match its checksum"):
        read_torch(_write(tmp_path / "file.pth", bytes(content)))


def test_files_without_checksums_are_read(torch: ModuleType, tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"weight": torch.ones(3)}, tmp_path / "file.pth")
    finally:
        torch.serialization.set_crc32_options(before)
    np.testing.assert_array_equal(read_torch(tmp_path / "file.pth")["weight"], [1, 1, 1])


def test_arrays_outlive_the_file_name(tmp_path: Path) -> None:
    path = _write(tmp_path / "file.pth", crafted.torch_zip())
    tree = read_torch(path)
    path.unlink()
    np.testing.assert_array_equal(tree["weight"], [[0, 1, 2], [3, 4, 5]])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"none\.pth' does not exist"):
        read_torch(tmp_path / "none.pth")
    with pytest.raises(FileError, match="is a folder"):
        read_torch(tmp_path)


def _flat(tree: Any) -> dict[str, Any]:
    return tree.get("model", tree)


@pytest.mark.skipif(not _GOLDEN.is_dir(), reason="the golden files are not in this checkout")
def test_golden_files_read_as_torch_reads_them(torch: ModuleType) -> None:
    files = {row["file"] for row in json.loads((_GOLDEN / "index.json").read_text()) if row["file"].endswith(".pth")}
    assert len(files) >= 10
    for name in sorted(files):
        arrays: dict[str, npt.NDArray[Any]] = _flat(read_torch(_GOLDEN / name))
        tensors = _flat(torch.load(_GOLDEN / name, weights_only=True))
        assert list(arrays) == list(tensors), name
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(arrays[key], tensor.numpy(), strict=True)
