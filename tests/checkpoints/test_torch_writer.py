"""Writing state dicts: torch reads them, the bytes are the same every time, and no half file is left."""

import collections
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from repvgg.base.errors import InputError
from repvgg.checkpoints.torch_format.element_types import ELEMENT_TYPES
from repvgg.checkpoints.torch_format.reader import read_torch
from repvgg.checkpoints.torch_format.writer import write_torch


def _tensors() -> dict[str, npt.NDArray[Any]]:
    by_type = {row.torch_name: np.array([[0, 1, 2], [3, 100, 5]]).astype(row.numpy) for row in ELEMENT_TYPES}
    grid = np.arange(24, dtype=np.float32).reshape(4, 6)
    return by_type | {
        "number": np.array(3.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "empty untyped": np.zeros((2, 0), np.uint16),
        "turned": grid.T,
        "part": grid[1:, ::2],
        "repeated": np.broadcast_to(np.float32(2), (3, 2)),
        "big-endian": np.arange(3, dtype=">f4"),
        "kernel": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
        "größe.bias": np.ones(1, np.float64),
    }


@pytest.mark.parametrize("mapped", [False, True])
def test_torch_reads_it(tmp_path: Path, mapped: bool) -> None:
    torch = pytest.importorskip("torch")
    tensors = _tensors()
    write_torch(tensors, tmp_path / "file.pth")
    state = torch.load(tmp_path / "file.pth", weights_only=True, mmap=mapped)
    assert type(state) is collections.OrderedDict
    assert list(state) == list(tensors)
    for name, array in tensors.items():
        assert str(state[name].dtype) == f"torch.{array.dtype.name}"
        assert tuple(state[name].shape) == array.shape
        assert state[name].stride() == torch.empty(array.shape).stride()
        little = array.astype(array.dtype.newbyteorder("<")) if name == "big-endian" else array
        raw = state[name].reshape(-1).view(torch.uint8).numpy().tobytes()
        assert raw == little.tobytes(), name


def test_it_reads_back_bit_for_bit_and_aligned(tmp_path: Path) -> None:
    tensors = _tensors() | {"nan": np.array([0x7FC00001, 0xFF800000], np.uint32).view(np.float32)}
    write_torch(tensors, tmp_path / "file.pth")
    arrays = read_torch(tmp_path / "file.pth")
    assert list(arrays) == list(tensors)
    for name, array in tensors.items():
        expected = array.astype("<f4") if name == "big-endian" else array
        assert (arrays[name].dtype, arrays[name].shape) == (expected.dtype, expected.shape)
        assert arrays[name].tobytes() == expected.tobytes()
        assert arrays[name].flags.c_contiguous
        assert arrays[name].size == 0 or arrays[name].ctypes.data % 64 == 0


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_torch(_tensors(), tmp_path / "one.pth")
    monkeypatch.setattr("sys.platform", "win32")  # zipfile records the system it ran on
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_torch(dict(_tensors()), tmp_path / "another.pt")
    assert (tmp_path / "one.pth").read_bytes() == (tmp_path / "another.pt").read_bytes()


def test_an_ordinary_zip_reader_finds_no_fault(tmp_path: Path) -> None:
    write_torch(_tensors(), tmp_path / "file.pth")
    with zipfile.ZipFile(tmp_path / "file.pth") as archive:
        assert archive.testzip() is None


def test_an_empty_state_dict(tmp_path: Path) -> None:
    write_torch({}, tmp_path / "file.pth")
    assert read_torch(tmp_path / "file.pth") == {}


def test_a_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.pth"
    write_torch({"weight": np.ones(2)}, path)
    before = path.read_bytes()
    original = zipfile.ZipFile.writestr

    def fail_late(self: zipfile.ZipFile, entry: zipfile.ZipInfo, content: bytes) -> None:
        if entry.filename.endswith("data/0"):
            raise OSError(28, "No space left on device")
        original(self, entry, content)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail_late)
    with pytest.raises(OSError, match="No space"):
        write_torch({"weight": np.zeros(3)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({3: np.ones(1)}, "called 3"),
        ({"a": [1.0]}, "'a' is a list"),
        ({"a": np.array(["text"])}, "'a' is an array of <U4"),
        ({"a": np.array([None])}, "'a' is an array of object"),
        ({"a": np.zeros(2, ml_dtypes.float8_e4m3fn)}, "'a' is an array of float8_e4m3fn"),
    ],
)
def test_what_torch_cannot_hold_is_refused(tmp_path: Path, tensors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        write_torch(tensors, tmp_path / "file.pth")
    assert not list(tmp_path.iterdir())
