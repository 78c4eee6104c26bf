"""PyTorch state dicts, written without torch."""

import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from repvgg.base.errors import InputError
from repvgg.base.files import atomic_output
from repvgg.checkpoints.torch_format.element_types import ELEMENT_TYPES, ElementType

_ROOT = "archive"  # torch uses the file's name here; a fixed word makes the bytes depend on the tensors alone
_ALIGNMENT = 64  # as torch: lets a reader map a tensor and use it in place
_LOCAL_HEADER_BYTES = 30
_EARLIEST_TIME = (1980, 1, 1, 0, 0, 0)
_ROWS = {row.numpy.name: row for row in ELEMENT_TYPES}


def write_torch(tensors: Mapping[str, npt.NDArray[Any]], path: Path) -> None:
    """Writes a state dict that `torch.load(path)` reads, with `weights_only=True` too.

    The file holds an `OrderedDict` of contiguous CPU tensors in the order of `tensors`. The same tensors always give
    the same bytes. The file appears whole or not at all.

    Args:
        tensors: Names and arrays: float16, bfloat16 (`ml_dtypes`), float32, float64, complex, integers, bool.
        path: Where to write; an existing file is replaced.

    Raises:
        InputError: A name is not a text, or an array is of a type that torch does not have.

    Example:
        >>> write_torch({"linear.bias": np.zeros(10, np.float32)}, Path("head.pth"))  # doctest: +SKIP
    """
    rows = [_element_type(name, array) for name, array in tensors.items()]
    with (
        atomic_output(path) as temporary,
        temporary.open("wb") as handle,
        zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as archive,
    ):
        _add(archive, "data.pkl", b"".join(_pickle(tensors, rows)))
        _add(archive, "byteorder", b"little")
        for key, (array, row) in enumerate(zip(tensors.values(), rows, strict=True)):
            _add(archive, f"data/{key}", _raw(array, row))
        _add(archive, "version", b"3\n")


def _element_type(name: object, array: object) -> ElementType:
    if not isinstance(name, str):
        raise InputError(f"A tensor is called {name!r}; torch's state dicts have text for names.")
    if not isinstance(array, np.ndarray) or array.dtype.name not in _ROWS:
        found = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
        raise InputError(f"'{name}' is {found}; a NumPy array of one of these was expected: {', '.join(_ROWS)}.")
    return _ROWS[array.dtype.name]


def _raw(array: npt.NDArray[Any], row: ElementType) -> memoryview:
    content = np.asarray(array, dtype=row.numpy, order="C")
    return content.reshape(-1).view(np.uint8).data


def _add(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    entry = zipfile.ZipInfo(f"{_ROOT}/{name}", _EARLIEST_TIME)
    entry.create_system = 3  # otherwise the operating system would show in the bytes
    if archive.fp is None:
        raise InputError(f"The archive was closed before '{name}' was written.")
    # An extra field pads the header, so that the content begins at a multiple of 64 bytes.
    header_end = archive.fp.tell() + _LOCAL_HEADER_BYTES + len(entry.filename) + 4
    padding = -header_end % _ALIGNMENT
    entry.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    archive.writestr(entry, content)


def _pickle(tensors: Mapping[str, npt.NDArray[Any]], rows: list[ElementType]) -> Iterator[bytes]:
    """Writes the protocol 2 pickle of the state dict; its storages follow as members called by their number."""
    ordered_dict = b"ccollections\nOrderedDict\n)R"
    yield b"\x80\x02" + ordered_dict + b"("
    for key, (name, row) in enumerate(zip(tensors, rows, strict=True)):
        array = tensors[name]
        typed = row.storage_class is not None
        # Types without a storage class of their own lie in bytes, and the tensor names its type instead.
        storage = f"ctorch\n{row.storage_class}\n" if typed else "ctorch.storage\nUntypedStorage\n"
        size = array.size if typed else array.nbytes
        yield _text(name) + f"ctorch._utils\n_rebuild_tensor_v{2 if typed else 3}\n".encode()
        yield b"((" + _text("storage") + storage.encode() + _text(str(key)) + _text("cpu") + _integer(size) + b"tQ"
        yield _integer(0) + _integers(array.shape) + _integers(_contiguous_strides(array.shape))
        yield b"\x89" + ordered_dict
        yield b"tR" if typed else f"ctorch\n{row.torch_name}\ntR".encode()
    yield b"u."


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + struct.pack("<i", number)
    return b"\x8a\x08" + struct.pack("<q", number)


def _integers(numbers: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(_integer(number) for number in numbers) + b"t"


def _contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
