"""The names a torch pickle may use, and the inert thing that stands for each.

Nothing here imports, looks up or calls what a file names: a name is found in `ALLOWED_NAMES` and answered by a small
function of this file, or the file is refused.

The functions never copy what they are given and look at a bounded part of it. A file can hand the same large object to
a hundred thousand calls for a few bytes each, so a copy or a scan would be a bomb.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from repvgg.checkpoints.errors import damaged, shown
from repvgg.checkpoints.torch_format.element_types import ELEMENT_TYPES

MAX_DIMENSIONS = 16
_MAX_KEY = 64
_LOCATION = re.compile(r"[a-z_]{1,32}(:\d{1,4})?")
_MAX_ENCODED_CHARACTERS = 64  # bytes objects of protocol 2; NumPy's numbers need 16


@dataclass(frozen=True, slots=True)
class AllowedName:
    """A name on the list. `make` answers a call of it; `storage` and `element` say what a storage or dtype holds."""

    name: str
    make: Callable[[tuple[object, ...]], object] | None = None
    storage: np.dtype[Any] | None = None
    element: np.dtype[Any] | None = None


@dataclass(frozen=True, slots=True)
class StorageReference:
    """A block of bytes outside the pickle: `size` elements, beginning `start` elements into the block called `key`."""

    key: str
    element: np.dtype[Any]
    root_size: int
    start: int
    size: int


@dataclass(frozen=True, slots=True)
class TensorReference:
    """A tensor as the pickle describes it; offset and strides count elements. Not yet checked against the bytes."""

    storage: StorageReference
    element: np.dtype[Any]
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(slots=True)
class InertRecord:
    """The attributes of an object whose class was never imported, such as the arguments of a training run."""

    kind: str
    fields: dict[object, object] = field(default_factory=dict)


@dataclass(slots=True)
class NumberType:
    """A NumPy number type under construction: pickles give its byte order after its name."""

    code: str
    order: str = "|"


def set_item(target: dict[object, object], key: object, value: object) -> None:
    """Adds one entry, if its key is plain and new.

    Keys are plain because hashing nested tuples can take forever, and integers are small because a file could choose
    large ones that all share one hash. A key that comes twice would leave it to the reader which value counts.
    """
    plain = key is None or isinstance(key, str | bytes | float) or (isinstance(key, int) and -(2**63) <= key < 2**63)
    if not plain:
        raise damaged(f"The pickle has a dictionary key of type {type(key).__name__}; text or a number was expected.")
    if key in target:
        raise damaged(f"The pickle gives the key '{shown(key)}' twice in one dictionary.")
    target[key] = value


def whole_number(value: object, *, what: str) -> int:
    """Gives `value` if it is an integer from 0 to 2**62."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 2**62:
        raise damaged(f"The pickle says that a {what} is {shown(value)}; a whole number from 0 on was expected.")
    return value


@dataclass(slots=True)
class StorageTable:
    """The storages a pickle refers to. One key must always mean the same block of bytes."""

    references: dict[str, StorageReference] = field(default_factory=dict)

    def refer(self, identity: object) -> StorageReference:
        """Turns a persistent id, ('storage', type, key, location, size[, view]), into a reference."""
        if not isinstance(identity, tuple) or not 5 <= len(identity) <= 6 or identity[0] != "storage":
            raise damaged("The pickle refers to something outside it that is not a tensor storage.")
        _, kind, key, location, size = identity[:5]
        if not isinstance(kind, AllowedName) or kind.storage is None:
            raise damaged("The pickle refers to a storage without naming a storage type.")
        if not isinstance(key, str) or not 0 < len(key) <= _MAX_KEY:
            raise damaged(f"The pickle refers to a storage by a key that is not 1 to {_MAX_KEY} characters of text.")
        if not isinstance(location, str) or _LOCATION.fullmatch(location) is None:
            raise damaged(f"The pickle says that storage '{shown(key)}' lay on an unknown kind of device.")
        root = StorageReference(key, kind.storage, whole_number(size, what="storage size"), 0, size)
        if self.references.setdefault(key, root) != root:
            raise damaged(f"The pickle describes storage '{shown(key)}' in two ways that differ.")
        view = identity[5] if len(identity) == 6 else None
        if view is None:
            return self.references[key]
        if not isinstance(view, tuple) or len(view) != 3:
            raise damaged(f"The pickle describes a part of storage '{shown(key)}' in an unknown way.")
        start, part = whole_number(view[1], what="storage offset"), whole_number(view[2], what="storage size")
        if start + part > root.size:
            raise damaged(f"The pickle takes elements {start} to {start + part} of a storage of {root.size}.")
        return StorageReference(key, kind.storage, root.size, start, part)


def _dimensions(value: object, *, what: str) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
        raise damaged(f"The pickle gives a tensor's {what} as something else than at most {MAX_DIMENSIONS} numbers.")
    return tuple(whole_number(number, what=what) for number in value)


def _wrong_call(name: str) -> Exception:
    return damaged(f"The pickle calls {name} with arguments it does not take.")


def _tensor(name: str, args: tuple[object, ...], element: object) -> TensorReference:
    storage, offset, shape, strides = args[:4]
    if not isinstance(storage, StorageReference) or not isinstance(element, np.dtype):
        raise _wrong_call(name)
    sizes, steps = _dimensions(shape, what="size"), _dimensions(strides, what="stride")
    if len(sizes) != len(steps):
        raise damaged(f"The pickle gives a tensor {len(sizes)} sizes and {len(steps)} strides.")
    return TensorReference(storage, element, whole_number(offset, what="tensor offset"), sizes, steps)


def _require_no_metadata(metadata: object) -> None:
    # torch keeps lazy conjugation and negation here: without them the numbers would be wrong.
    if metadata is not None and metadata != {}:
        raise damaged("The pickle holds a tensor with a pending conjugation or negation, which is not supported.")


def _rebuild_tensor_v2(args: tuple[object, ...]) -> TensorReference:
    name = "torch._utils._rebuild_tensor_v2"
    if not 4 <= len(args) <= 7 or not isinstance(args[0], StorageReference):
        raise _wrong_call(name)
    _require_no_metadata(args[6] if len(args) == 7 else None)
    return _tensor(name, args, args[0].element)


def _rebuild_tensor_v3(args: tuple[object, ...]) -> TensorReference:
    name = "torch._utils._rebuild_tensor_v3"
    if not 7 <= len(args) <= 8 or not isinstance(args[6], AllowedName):
        raise _wrong_call(name)
    _require_no_metadata(args[7] if len(args) == 8 else None)
    return _tensor(name, args, args[6].element)


def _rebuild_parameter(args: tuple[object, ...]) -> TensorReference:
    if len(args) != 3 or not isinstance(args[0], TensorReference):
        raise _wrong_call("torch._utils._rebuild_parameter")
    return args[0]


def _size(args: tuple[object, ...]) -> tuple[int, ...]:
    if len(args) != 1:
        raise _wrong_call("torch.Size")
    return _dimensions(args[0], what="size")


def _device(args: tuple[object, ...]) -> str:
    if not 1 <= len(args) <= 2 or not isinstance(args[0], str) or len(args[0]) > 32:
        raise _wrong_call("torch.device")
    return args[0] if len(args) == 1 else f"{args[0]}:{whole_number(args[1], what='device index')}"


def _ordered_dict(args: tuple[object, ...]) -> dict[object, object]:
    # Python 2 passed the entries as a list of pairs. Files that old are rare, and reading them would need a copy.
    if args:
        raise _wrong_call("collections.OrderedDict")
    return {}


def _counter(args: tuple[object, ...]) -> object:
    if len(args) != 1 or not isinstance(args[0], dict):
        raise _wrong_call("collections.Counter")
    return args[0]


def _set(args: tuple[object, ...]) -> object:
    # It stays the list it was written as: building a set would hash whatever is in it.
    if len(args) != 1 or not isinstance(args[0], list):
        raise _wrong_call("set")
    return args[0]


def _encode(args: tuple[object, ...]) -> bytes:
    if len(args) != 2 or not isinstance(args[0], str) or args[1] != "latin1":
        raise _wrong_call("_codecs.encode")
    if len(args[0]) > _MAX_ENCODED_CHARACTERS or not all(ord(character) < 256 for character in args[0]):
        raise damaged(f"The pickle holds raw bytes that are not a number of at most {_MAX_ENCODED_CHARACTERS} bytes.")
    return args[0].encode("latin1")


def _number_type(args: tuple[object, ...]) -> NumberType:
    codes = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")
    if len(args) != 3 or not isinstance(args[0], str) or args[0] not in codes:
        raise _wrong_call("numpy.dtype")
    return NumberType(args[0])


def _number(args: tuple[object, ...]) -> object:
    if len(args) != 2 or not isinstance(args[0], NumberType) or not isinstance(args[1], bytes):
        raise _wrong_call("numpy.scalar")
    dtype = np.dtype(args[0].order + args[0].code)
    if len(args[1]) != dtype.itemsize:
        raise damaged(f"The pickle holds a {dtype.name} of {len(args[1])} bytes.")
    number: object = np.frombuffer(args[1], dtype)[0].item()
    return number


def _record(kind: str) -> Callable[[tuple[object, ...]], object]:
    def make(args: tuple[object, ...]) -> InertRecord:
        if args:
            raise _wrong_call(kind)
        return InertRecord(kind)

    return make


def _storages() -> dict[tuple[str, str], AllowedName]:
    modules = ("torch", "torch.cuda")
    typed = {
        (module, row.storage_class): AllowedName(f"{module}.{row.storage_class}", storage=row.numpy)
        for module in modules
        for row in ELEMENT_TYPES
        if row.storage_class is not None
    }
    untyped = AllowedName("torch.storage.UntypedStorage", storage=np.dtype("u1"))
    return typed | {("torch.storage", "UntypedStorage"): untyped, ("torch", "UntypedStorage"): untyped}


def _calls() -> dict[tuple[str, str], AllowedName]:
    rows: tuple[tuple[str, str, Callable[[tuple[object, ...]], object]], ...] = (
        ("torch._utils", "_rebuild_tensor_v2", _rebuild_tensor_v2),
        ("torch._utils", "_rebuild_tensor_v3", _rebuild_tensor_v3),
        ("torch._utils", "_rebuild_parameter", _rebuild_parameter),
        ("torch", "Size", _size),
        ("torch", "device", _device),
        ("collections", "OrderedDict", _ordered_dict),
        ("collections", "Counter", _counter),
        ("__builtin__", "set", _set),
        ("builtins", "set", _set),
        ("_codecs", "encode", _encode),
        ("numpy", "dtype", _number_type),
        ("numpy.core.multiarray", "scalar", _number),
        ("numpy._core.multiarray", "scalar", _number),
        # What training scripts keep beside the weights: the official repository's settings, timm's arguments.
        ("argparse", "Namespace", _record("argparse.Namespace")),
        ("yacs.config", "CfgNode", _record("yacs.config.CfgNode")),
    )
    return {(module, name): AllowedName(f"{module}.{name}", make=make) for module, name, make in rows}


ALLOWED_NAMES: dict[tuple[str, str], AllowedName] = (
    _calls()
    | _storages()
    | {("torch", row.torch_name): AllowedName(f"torch.{row.torch_name}", element=row.numpy) for row in ELEMENT_TYPES}
)
