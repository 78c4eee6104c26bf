"""The corpus of hostile checkpoint files: damaged, lying, malicious, and merely exhausting."""

import json
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crafted import (
    OD,
    PROTO,
    REBUILD,
    SIX_FLOATS,
    group,
    legacy,
    marking_pickle,
    safetensors,
    state_dict,
    storage,
    tensor,
    text,
    torch_zip,
)
from hostile_pickles import TENSOR_ARGUMENTS, broken_pickles, lying_pickles, swollen_pickles, unsafe_pickles

from repvgg.base.errors import CheckpointError, UnsafeCheckpointError


@dataclass(frozen=True)
class Case:
    """One file, the error it must end in, and words its message must have ("a|b": one of them)."""

    name: str
    content: bytes
    error: type[CheckpointError]
    says: str


def corpus(marker: Path) -> Iterator[Case]:
    """All hostile files; those that would run something would create the file `marker`."""
    for name, pickle, says in unsafe_pickles(marker):
        yield Case(f"zip: {name}", torch_zip(pickle), UnsafeCheckpointError, says)
        yield Case(f"legacy: {name}", legacy(pickle), UnsafeCheckpointError, says)
        if b"storage" not in pickle:  # without torch's header, a storage is refused before the rest is looked at
            yield Case(f"bare: {name}", pickle, UnsafeCheckpointError, says)
    for name, pickle, says in (*lying_pickles(), *broken_pickles(), *swollen_pickles()):
        yield Case(f"zip: {name}", torch_zip(pickle), CheckpointError, says)
        empty = () if b"storage" in pickle else (b"]", b"")
        yield Case(f"legacy: {name}", legacy(pickle, *empty), CheckpointError, says)
    for name, content, says in (*_zips(), *_legacies(marker), *_safetensors(), *_strangers()):
        unsafe = name.startswith("unsafe")
        yield Case(name, content, UnsafeCheckpointError if unsafe else CheckpointError, says)


def _zips() -> Iterator[tuple[str, bytes, str]]:
    good = torch_zip()
    yield "zip: compressed", torch_zip(compression=zipfile.ZIP_DEFLATED), "compressed"
    yield "zip: bomb", torch_zip(storages={"0": b"\0" * 2**24}, compression=zipfile.ZIP_DEFLATED), "compressed"
    for name in (
        "../../evil",
        "/etc/evil",
        "archive/../../evil",
        "C:/evil",
        "archive\\evil",
        "archive//evil",
        "./evil",
    ):
        yield f"zip: member {name}", torch_zip(extra={name: b"x"}), "torch does not write"
    yield "zip: two pickles", torch_zip(extra={"other/data.pkl": b"\x80\x02N."}), "data.pkl"
    yield "zip: no pickle", good.replace(b"data.pkl", b"data.pkx"), "data.pkl"
    yield "zip: program", torch_zip(extra={"archive/constants.pkl": b"\x80\x02)."}), "TorchScript"
    yield "zip: big-endian", torch_zip(extra={"archive/byteorder": b"big"}), "big-endian"
    yield "zip: storage too short", torch_zip(storages={"0": SIX_FLOATS[:-4]}), "20 bytes"
    yield "zip: storage too long", torch_zip(storages={"0": SIX_FLOATS * 2}), "48 bytes"
    yield "zip: wrong checksum", good.replace(SIX_FLOATS, SIX_FLOATS[:-1] + b"\x41"), "checksum"
    yield "zip: changed pickle", good.replace(b"weight", b"weighs"), "checksum"
    yield "zip: bytes after the end", good + b"x", "no end"
    yield "zip: bytes before the start", b"PK\x03\x04" + good, "list of members"
    yield "zip: only a start", b"PK\x03\x04", "no end"
    directory = good.index(b"PK\x01\x02")
    end = good.index(b"PK\x05\x06")
    yield "zip: encrypted", _patched(good, directory + 8, b"\x01\x00"), "encrypted"
    yield "zip: method in the list", _patched(good, directory + 10, b"\x0c\x00"), "compressed"
    yield "zip: method in the header", _patched(good, 8, b"\x08\x00"), "does not begin"
    yield "zip: name in the header", _patched(good, 30, b"b"), "another name"
    yield "zip: place of a member", _patched(good, directory + 42, b"\x05\x00\x00\x00"), "does not begin"
    yield "zip: place outside", _patched(good, directory + 42, b"\xf0\xff\xff\x7f"), "outside"
    yield "zip: place in missing field", _patched(good, directory + 42, b"\xff" * 4), "lacks"
    yield "zip: size of a member", _patched(good, directory + 20, b"\xff\xff\xff\x7f" * 2), "more than the file"
    yield "zip: packed size of a member", _patched(good, directory + 20, b"\x01"), "compressed"
    yield "zip: too few members", _patched(good, end + 8, b"\x02\x00\x02\x00"), "more members"
    yield "zip: too many members", _patched(good, end + 8, b"\x09\x00\x09\x00"), "fewer members"
    yield "zip: members on other disks", _patched(good, end + 4, b"\x01\x00"), "end record"
    yield "zip: directory elsewhere", _patched(good, end + 16, b"\x00\x00\x00\x00"), "end record"
    twice = torch_zip(extra={"archive/data/1": SIX_FLOATS}).replace(b"archive/data/1", b"archive/data/0")
    yield "zip: one name twice", twice, "twice"
    yield "zip: shared bytes", _overlapping(), "share bytes"


def _patched(content: bytes, position: int, replacement: bytes) -> bytes:
    return content[:position] + replacement + content[position + len(replacement) :]


def _overlapping() -> bytes:
    """Puts the header of one member inside the content of another, as zip bombs do."""
    inner = b"PK\x03\x04" + bytes(22) + struct.pack("<2H", 14, 0) + b"archive/data/9"
    content = torch_zip(extra={"archive/a": inner, "archive/data/9": b""})
    place = content.index(inner)
    entry = content.rindex(b"archive/data/9") - 46
    return _patched(content, entry + 42, struct.pack("<I", place))


def _legacies(marker: Path) -> Iterator[tuple[str, bytes, str]]:
    run = marking_pickle(marker)
    yield "legacy: wrong magic number", legacy(magic=PROTO + b"K\x01."), "not one of torch.save"
    yield "legacy: other version", legacy(version=PROTO + b"M\xea\x03."), "1001"
    yield "legacy: big-endian", legacy(little_endian=b"\x89"), "little-endian"
    yield "unsafe legacy: runs in place of the magic number", legacy(magic=run), "os.system"
    yield "unsafe legacy: runs in place of the version", legacy(version=run), "os.system"
    yield "unsafe legacy: runs in place of the keys", legacy(keys=run[2:-1]), "os.system"
    yield "legacy: storage in place of the version", legacy(version=PROTO + storage() + b"."), "where none can be"
    yield "legacy: keys are a number", legacy(keys=b"K\x01"), "list of storages"
    yield "legacy: no keys", legacy(keys=b"]"), "left over"
    yield "legacy: neither keys nor storages", legacy(keys=b"]", storages=b""), "missing"
    yield "legacy: more keys", legacy(keys=b"](" + text("0") + text("1") + b"e"), "list of storages"
    yield "legacy: other key", legacy(keys=b"](" + text("1") + b"e"), "no tensor uses"
    yield "legacy: key as a list", legacy(keys=b"]]a"), "no tensor uses"
    yield "legacy: negative size", legacy(storages=struct.pack("<q", -1) + SIX_FLOATS), "-1 elements"
    yield "legacy: huge size", legacy(storages=struct.pack("<q", 2**62) + SIX_FLOATS), "elements"
    yield "legacy: bytes after the last storage", legacy() + b"x", "1 bytes are left over"
    yield "legacy: no storages", legacy(storages=b""), "0 elements"
    two = state_dict(a=tensor(), b=tensor(storage(key=text("1"))))
    both = struct.pack("<q", 6) + SIX_FLOATS + struct.pack("<q", 6) + SIX_FLOATS
    yield "legacy: one key twice", legacy(two, b"](" + text("0") * 2 + b"e", both), "twice"


def _safetensors() -> Iterator[tuple[str, bytes, str]]:
    def entry(**changes: object) -> dict[str, object]:
        return {"weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]} | changes}

    good = {"weight": entry()["weight"]}
    yield "safetensors: header too long", safetensors(good, length=2**40), "header"
    yield "safetensors: header a little too long", safetensors(good, length=len(json.dumps(good)) + 1), "safetensors"
    yield "safetensors: no JSON", safetensors(b"{" * 40), "safetensors"
    yield "safetensors: nested JSON", safetensors(b'{"a":' * 100_000), "safetensors"
    yield "safetensors: offsets beyond", safetensors(entry(data_offsets=[0, 48])), "safetensors"
    yield "safetensors: offsets backwards", safetensors(entry(data_offsets=[24, 0])), "safetensors"
    yield "safetensors: wrong shape", safetensors(entry(shape=[3, 3])), "safetensors"
    yield "safetensors: huge shape", safetensors(entry(shape=[2**62, 2**62])), "safetensors"
    yield "safetensors: unknown type", safetensors(entry(dtype="X32")), "safetensors"
    yield "safetensors: hole", safetensors(entry(), SIX_FLOATS + b"more"), "safetensors"
    yield "safetensors: float8", safetensors(entry(dtype="F8_E4M3", shape=[24])), "NumPy does not have"
    yield "safetensors: empty", safetensors({}, b""), "no tensors"


def _strangers() -> Iterator[tuple[str, bytes, str]]:
    yield "empty file", b"", "empty"
    yield "one byte", b"\x80", "breaks off"
    yield "text", b"epoch,loss\n1,0.5\n", "unknown kind"
    yield "web page", b"<!DOCTYPE html><html>", "download"
    yield "HDF5", b"\x89HDF\r\n\x1a\n" + bytes(100), "Keras"
    yield "gzip", b"\x1f\x8b\x08" + bytes(100), "gzip"
    yield "zeros", bytes(1000), "unknown kind"


def exhausting() -> Iterator[tuple[str, bytes]]:
    """Files that do as much as the limits allow: some are read, some are refused late."""
    steps = 499_000
    tensors = PROTO + b"(" + REBUILD + b"q\x00" + group(*TENSOR_ARGUMENTS, b"\x89", OD) + b"q\x01R"
    pickles = {
        "dictionaries": PROTO + b"(" + b"}" * steps + b"t.",
        "records": PROTO + b"(cargparse\nNamespace\nq\x00)\x81" + b"h\x00)\x81" * (steps // 3 - 5) + b"t.",
        "tensors": tensors + b"h\x00h\x01R" * (steps // 3 - 99) + b"t.",
        "tuples": PROTO + b")" + b"\x85" * steps,
        "numbers": PROTO + b"(" + (b"\x8a\xff" + b"\x7f" * 255) * 120_000 + b"t.",
        "text": PROTO + b"X" + struct.pack("<I", 31 * 2**20) + "é".encode() * (31 * 2**19) + b".",
        "keys": PROTO + b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(steps // 2 - 5)) + b"u.",
        "too long": PROTO + b"X" + struct.pack("<I", 40 * 2**20) + b"a" * (40 * 2**20) + b".",
    }
    for name, pickle in pickles.items():
        yield name, torch_zip(pickle)
    names = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    yield "safetensors", safetensors(names, b"")
    yield "members", torch_zip(extra={f"archive/{i}": b"" for i in range(50_000)})
