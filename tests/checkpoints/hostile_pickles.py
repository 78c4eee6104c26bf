"""Pickles that want to run something, lie about their tensors, break off, or swell."""

import struct
from collections.abc import Iterator
from pathlib import Path

from crafted import OD, PROTO, REBUILD, group, integer, integers, marking_pickle, state_dict, storage, tensor, text


def unsafe_pickles(marker: Path) -> Iterator[tuple[str, bytes, str]]:
    echo = text(f"echo ran > '{marker}'")
    touch = text(f"open({str(marker)!r}, 'w')")
    yield "os.system", marking_pickle(marker), "os.system"
    yield "posix.system", PROTO + b"cposix\nsystem\n" + echo + b"\x85R.", "posix.system"
    yield "eval", PROTO + b"cbuiltins\neval\n" + touch + b"\x85R.", "builtins.eval"
    yield "eval of Python 2", PROTO + b"c__builtin__\neval\n" + touch + b"\x85R.", "__builtin__.eval"
    yield "in a value", state_dict(weight=tensor(), bias=b"cos\nsystem\n" + echo + b"\x85R"), "os.system"
    yield "in a hook", state_dict(weight=tensor(None, integer(0), integers(1), b"cos\nsystem\n" + echo)), "os.system"
    nested = PROTO + b"cbuiltins\ngetattr\ncbuiltins\n__import__\n" + text("os") + b"\x85R" + text("system") + b"\x86R"
    yield "nested calls", nested + echo + b"\x85R.", "builtins.getattr"
    yield "only fetched", PROTO + b"csubprocess\nPopen\n.", "subprocess.Popen"
    yield "nested pickle", PROTO + b"ctorch.storage\n_load_from_bytes\nC\x01.\x85R.", "_load_from_bytes"
    for module, name in (
        ("collections", "OrderedDict.__init__.__globals__"),
        ("collections.OrderedDict", "fromkeys"),
        ("torch", "load"),
        ("torch", "FloatStorage.__class__"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("torch._utils", "_rebuild_tensor_v2 "),
        ("torch._tensor", "_rebuild_from_type_v2"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("functools", "partial"),
        ("copyreg", "_reconstructor"),
        ("copyreg", "add_extension"),
        ("repvgg.checkpoints.torch_format.pickle_names", "AllowedName"),
    ):
        yield f"{module}:{name}", PROTO + f"c{module}\n{name}\n.".encode(), f"{module}.{name}"
        yield f"{module}:{name} from the stack", b"\x80\x04" + text(module) + text(name) + b"\x93.", f"{module}.{name}"
    recalled = b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x94h\x00h\x01\x93" + echo + b"\x85R."
    yield "name from the memo", recalled, "os.system"
    yield "name that is not text", b"\x80\x04" + text("os") + b"]\x93.", "name is not text"
    yield "name of bytes", b"\x80\x04C\x02osC\x06system\x93.", "name is not text"
    yield "terminal codes", PROTO + b"cos\n\x1b[2Jsystem\n.", r"os.\x1b[2Jsystem"
    yield "endless name", PROTO + b"cos\n" + b"x" * 900 + b"\n.", "os.xxx"
    yield "INST", PROTO + b"(" + echo + b"ios\nsystem\n.", "os.system"
    yield "INST of an allowed name", PROTO + b"(icollections\nOrderedDict\n.", "collections.OrderedDict"
    yield "OBJ", PROTO + b"(ccollections\nOrderedDict\no.", "OBJ"
    yield "NEWOBJ", PROTO + b"cos\nsystem\n" + echo + b"\x85\x81.", "os.system"
    yield "NEWOBJ_EX", PROTO + b"ccollections\nOrderedDict\n)}\x92.", "NEWOBJ_EX"
    yield "EXT1", PROTO + b"\x82\x01.", "EXT1"
    yield "EXT4", PROTO + b"\x84\x01\x00\x00\x00.", "EXT4"
    yield "call of a storage type", PROTO + b"ctorch\nFloatStorage\n)R.", "torch.FloatStorage"
    yield "call of a dtype", PROTO + b"ctorch\nfloat32\n)R.", "torch.float32"
    yield "call of text", PROTO + text("os.system") + b")R.", "calls 'str'"
    yield "state of a function", PROTO + REBUILD + b"}b.", "inner state"
    yield "state of a tensor", state_dict(weight=tensor() + b"}" + text("__setstate__") + b"Nsb"), "inner state"
    yield "state of a list", PROTO + b"]}b.", "inner state"
    yield "state that is not a dictionary", PROTO + OD + b"N}\x86b.", "inner state"


def lying_pickles() -> Iterator[tuple[str, bytes, str]]:
    stores = {
        "not a storage": (
            group(text("module"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), b"K\x06") + b"Q",
            "not a tensor storage",
        ),
        "too short": (group(text("storage"), text("0")) + b"Q", "not a tensor storage"),
        "text for an id": (text("0") + b"Q", "not a tensor storage"),
        "type as text": (storage(text("FloatStorage")), "storage type"),
        "type that is a function": (storage(REBUILD), "storage type"),
        "wider type": (storage(b"ctorch\nDoubleStorage\n"), "Storage '0' has|breaks off"),
        "narrower type": (storage(b"ctorch\nByteStorage\n"), "Storage '0' has|left over"),
        "number for a key": (storage(key=b"K\x00"), "key"),
        "missing key": (storage(key=text("7")), "missing|does not fit|no tensor uses"),
        "key that climbs": (storage(key=text("../data.pkl")), "missing|does not fit|no tensor uses"),
        "endless key": (storage(key=text("0" * 1000)), "key"),
        "device as a path": (storage(location=text("/etc/passwd")), "device"),
        "device as a number": (storage(location=b"K\x00"), "device"),
        "negative size": (storage(size=integer(-1)), "storage size"),
        "huge size": (storage(size=integer(2**100)), "storage size"),
        "large size": (storage(size=integer(2**60)), "expect|elements"),
        "double size": (storage(size=integer(12)), "expect|elements"),
        "half size": (storage(size=integer(3)), "expect|elements"),
        "true for a size": (storage(size=b"\x88"), "storage size"),
        "fraction for a size": (storage(size=b"G" + struct.pack(">d", 6.0)), "storage size"),
        "view beyond": (storage(*_view(0, 7)), "elements 0 to 7"),
        "view from beyond": (storage(*_view(6, 1)), "elements 6 to 7"),
        "view of text": (storage(*_DEFAULTS, text("view")), "unknown way"),
    }
    for name, (source, says) in stores.items():
        yield f"storage: {name}", state_dict(weight=tensor(source)), says
    two_types = state_dict(a=tensor(), b=tensor(storage(b"ctorch\nIntStorage\n")))
    yield "storage: two types for one key", two_types, "two ways"
    tensors = {
        "negative offset": (tensor(offset=integer(-1)), "offset"),
        "offset beyond": (tensor(offset=integer(1)), "reaches to byte 28"),
        "huge offset": (tensor(offset=integer(2**62)), "reaches to byte"),
        "negative stride": (tensor(strides=integers(3, -1)), "stride"),
        "stride beyond": (tensor(strides=integers(4, 1)), "reaches to byte 28"),
        "huge stride": (tensor(strides=integers(2**61, 1)), "reaches to byte"),
        "negative size": (tensor(shape=integers(-2, 3)), "size"),
        "size beyond": (tensor(shape=integers(3, 3)), "reaches to byte"),
        "endless repetition": (tensor(shape=integers(2**40, 2**20), strides=integers(0, 0)), "more bytes"),
        "impossible empty shape": (tensor(shape=integers(0, *[2**62] * 3), strides=integers(*[0] * 4)), "impossible"),
        "sizes without strides": (tensor(strides=integers(1)), "2 sizes and 1 strides"),
        "seventeen axes": (tensor(shape=integers(*[1] * 17), strides=integers(*[1] * 17)), "16"),
        "shape as text": (tensor(shape=text("23")), "size"),
        "size as text": (tensor(shape=group(text("2"), text("3"))), "size"),
        "no storage": (tensor(b"]"), "arguments"),
        "storage as text": (tensor(text("0")), "arguments"),
        "no arguments": (REBUILD + b")R", "arguments"),
        "arguments in a list": (REBUILD + b"]R", "in place of arguments"),
        "pending conjugation": (tensor(*TENSOR_ARGUMENTS, b"}" + text("conj") + b"\x88s"), "conjugation"),
        "dtype as text": (_v3(text("float32")), "arguments"),
        "storage type for a dtype": (_v3(b"ctorch\nFloatStorage\n"), "arguments"),
        "wider dtype": (_v3(b"ctorch\nfloat64\n"), "reaches to byte 48"),
        "parameter of nothing": (b"ctorch._utils\n_rebuild_parameter\n" + group(b"N", b"\x88", OD) + b"R", "arguments"),
    }
    for name, (value, says) in tensors.items():
        yield f"tensor: {name}", state_dict(weight=value), says


_DEFAULTS = (b"ctorch\nFloatStorage\n", text("0"), text("cpu"), integer(6))
TENSOR_ARGUMENTS = (storage(), integer(0), integers(2, 3), integers(3, 1))


def _view(start: int, size: int) -> tuple[bytes, ...]:
    return (*_DEFAULTS, group(text("1"), integer(start), integer(size)))


def _v3(dtype: bytes) -> bytes:
    return REBUILD.replace(b"v2", b"v3") + group(*TENSOR_ARGUMENTS, b"\x89", OD, dtype) + b"R"


def broken_pickles() -> Iterator[tuple[str, bytes, str]]:
    yield "no stop", PROTO + b"N" * 5, "."
    yield "leftovers", PROTO + b"NN.", "left over"
    yield "open mark", PROTO + b"N(.", "left over"
    yield "nothing made", PROTO + b".", "left over"
    yield "takes too much", PROTO + b"N\x86.", "not made"
    yield "reaches below the mark", PROTO + b"]N(at.", "not made"
    yield "stores nothing", PROTO + b"q\x00.", "not made"
    yield "ends no group", PROTO + b"t.", "not begun"
    yield "recalls nothing", PROTO + b"h\x07.", "recalls entry 7"
    yield "appends to a dictionary", PROTO + b"}Na.", "appends to a dict"
    yield "entry of a list", PROTO + b"]NNs.", "entry of a list"
    yield "odd entries", PROTO + b"}(Nu.", "without a value"
    yield "key twice", PROTO + b"}(" + (text("a") + b"N") * 2 + b"u.", "twice"
    yield "key is a list", PROTO + b"}]Ns.", "key of type list"
    yield "key is a nest of tuples", PROTO + b"}" + b")" + b"q\x01h\x01\x86" * 60 + b"Ns.", "key of type tuple"
    yield "key is a huge number", PROTO + b"}" + integer(2**61 - 1 << 61) + b"Ns.", "key of type int"
    yield "old protocol", b"\x80\x01N.", "protocol"
    yield "new protocol", b"\x80\x09N.", "protocol"
    yield "operation of protocol 0", PROTO + b"I1\n.", "0x49"
    yield "DUP", PROTO + b")22.", "0x32"
    yield "textual storage id", PROTO + b"P0\n.", "0x50"
    yield "unknown operation", PROTO + b"\xff.", "0xff"
    yield "frame too long", b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "frame"
    yield "text too long", PROTO + b"X\xff\xff\xff\xffa.", "more bytes than there are"
    yield "text of 8 EiB", b"\x80\x04\x8d" + struct.pack("<Q", 2**63) + b"a.", "more bytes than there are"
    yield "bytes of 8 EiB", b"\x80\x04\x8e" + struct.pack("<Q", 2**63) + b"a.", "more bytes than there are"
    yield "number of 2 GiB", PROTO + b"\x8b\xff\xff\xff\x7f1.", "0x8b"
    yield "number too long", PROTO + b"\x8a\xff1", "."
    yield "text not UTF-8", PROTO + b"X\x02\x00\x00\x00\xff\xfe.", "UTF-8"
    yield "name without end", PROTO + b"c" + b"x" * 2000, "1024"
    yield "type in place of data", PROTO + b"ctorch\nFloatStorage\n.", "itself"
    yield "number type in place of data", PROTO + _NUMBER_TYPE + b".", "itself"
    yield "number of the wrong width", PROTO + _number(text("\0" * 7)), "7 bytes"
    yield "number of objects", PROTO + _number(text("\0" * 8)).replace(b"f8", b"O8"), "arguments"
    yield "endless raw bytes", PROTO + b"c_codecs\nencode\n" + text("a" * 65) + text("latin1") + b"\x86R.", "64"
    yield "other encoding", PROTO + b"c_codecs\nencode\n" + text("a") + text("rot13") + b"\x86R.", "arguments"


_NUMBER_TYPE = b"cnumpy\ndtype\n" + text("f8") + b"\x89\x88\x87R"


def _number(raw: bytes) -> bytes:
    encoded = b"c_codecs\nencode\n" + raw + text("latin1") + b"\x86R"
    return b"cnumpy.core.multiarray\nscalar\n" + _NUMBER_TYPE + encoded + b"\x86R."


def swollen_pickles() -> Iterator[tuple[str, bytes, str]]:
    """Small files that stand for endless objects."""
    yield "deep tuples", PROTO + b")" + b"\x85" * 100_000 + b".", "64 levels"
    yield "deep lists", PROTO + b"]" * 1000 + b"a" * 999 + b".", "64 levels"
    yield "a list in itself", PROTO + b"]q\x00h\x00a.", "64 levels"
    yield "a dictionary in itself", PROTO + b"}q\x00" + text("a") + b"h\x00s.", "64 levels"
    yield "billion laughs, tuples", PROTO + _laughs(b"", b"t") + b".", "entries"
    yield "billion laughs, lists", PROTO + _laughs(b"]", b"e") + b".", "entries"
    yield "billion marks", PROTO + b"(" * 600_000, "steps"
    shared = b"}q\x00(" + b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(20_000)) + b"u"
    record = b"cargparse\nNamespace\nq\x01)\x81h\x00b"
    yield "one state for many", PROTO + b"(" + shared + record + b"h\x01)\x81h\x00b" * 20_000 + b"t.", "entries"
    big = tensor(shape=integers(6, 100_000), strides=integers(1, 0))
    yield "one tensor many times", PROTO + b"(" + big + b"q\x00" + b"h\x00" * 1000 + b"t.", "more bytes"


def _laughs(begin: bytes, end: bytes) -> bytes:
    """Levels that each hold the one below ten times; the last one stands for 10**12 entries."""
    levels = [b"N"] + [begin + b"(" + (b"h" + bytes([i])) * 10 + end for i in range(12)]
    return b"(" + b"".join(level + b"q" + bytes([i]) for i, level in enumerate(levels)) + b"t"
