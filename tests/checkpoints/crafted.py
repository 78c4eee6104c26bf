"""Checkpoint files put together byte by byte: only pickle opcodes and `zipfile`, no torch."""

import io
import json
import struct
import zipfile
from pathlib import Path

PROTO = b"\x80\x02"
MAGIC = PROTO + b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
VERSION = PROTO + b"M\xe9\x03."
OD = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    raw = value.to_bytes(20, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def group(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def integers(*values: int) -> bytes:
    return group(*(integer(value) for value in values))


def storage(
    kind: bytes = b"ctorch\nFloatStorage\n",
    key: bytes = text("0"),
    location: bytes = text("cpu"),
    size: bytes = integer(6),
    *more: bytes,
) -> bytes:
    return group(text("storage"), kind, key, location, size, *more) + b"Q"


def tensor(
    source: bytes | None = None,
    offset: bytes = integer(0),
    shape: bytes = integers(2, 3),
    strides: bytes = integers(3, 1),
    *more: bytes,
) -> bytes:
    source = storage() if source is None else source
    return REBUILD + group(source, offset, shape, strides, b"\x89", OD, *more) + b"R"


def state_dict(**values: bytes) -> bytes:
    return PROTO + OD + b"(" + b"".join(text(name) + value for name, value in values.items()) + b"u."


SIX_FLOATS = struct.pack("<6f", *range(6))
GOOD_PICKLE = state_dict(weight=tensor(), bias=tensor(shape=integers(3), strides=integers(2)))


def torch_zip(
    pickle: bytes = GOOD_PICKLE,
    storages: dict[str, bytes] | None = None,
    extra: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> bytes:
    members = {"archive/data.pkl": pickle, "archive/byteorder": b"little"}
    members |= {f"archive/data/{key}": raw for key, raw in (storages or {"0": SIX_FLOATS}).items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in (members | {"archive/version": b"3\n"} | (extra or {})).items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def legacy(
    pickle: bytes = GOOD_PICKLE,
    keys: bytes = b"](" + text("0") + b"e",
    storages: bytes = struct.pack("<q", 6) + SIX_FLOATS,
    *,
    magic: bytes = MAGIC,
    version: bytes = VERSION,
    little_endian: bytes = b"\x88",
) -> bytes:
    system = PROTO + b"}(" + text("protocol_version") + b"M\xe9\x03" + text("little_endian") + little_endian + b"u."
    return magic + version + system + pickle + PROTO + keys + b"." + storages


def safetensors(header: dict[str, object] | bytes, data: bytes = SIX_FLOATS, length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


GOOD_SAFETENSORS = safetensors({"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}})


def marking_pickle(marker: Path) -> bytes:
    """A pickle that creates the file `marker` when Python's own unpickler reads it."""
    return PROTO + b"cos\nsystem\n" + text(f"echo ran > '{marker}'") + b"\x85R."
