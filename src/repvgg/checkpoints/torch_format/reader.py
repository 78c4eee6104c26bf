"""PyTorch checkpoint files, read without torch and without running anything they hold."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from repvgg.base.errors import CheckpointError
from repvgg.base.files import require_file
from repvgg.checkpoints.errors import damaged, shown
from repvgg.checkpoints.torch_format.pickle_names import (
    AllowedName,
    InertRecord,
    NumberType,
    StorageReference,
    StorageTable,
    TensorReference,
)
from repvgg.checkpoints.torch_format.restricted_pickle import MAX_PICKLE_BYTES, load_restricted
from repvgg.checkpoints.torch_format.stored_zip import list_members, member_bytes

ZIP_START: Final = b"PK\x03\x04"
PICKLE_START: Final = b"\x80"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DEPTH = 64
_MAX_NODES = 500_000

# Tensors may share bytes, so they may add up to more than the file; not to so much more that a copy fills the memory.
_BYTES_PER_FILE_BYTE = 8
_FREE_BYTES = 16 * 2**20

_Span = Callable[[StorageReference], tuple[int, int]]


def read_torch(path: Path) -> object:
    """Reads a file that `torch.save` wrote, in today's zip format or in the format before torch 1.6.

    Args:
        path: The file. Its name does not matter.

    Returns:
        What was saved: dictionaries (an `OrderedDict` is a plain one, in the same order), lists (sets too), tuples,
        numbers, text, `InertRecord` for the few known objects beside the weights, and each tensor as an array of
        its own shape and strides (bfloat16 as `ml_dtypes.bfloat16`). It is at most 64 deep and never contains itself.
        The arrays are read-only views on the mapped file: nothing is copied, tensors that shared memory still do,
        and those of the old format may be unaligned. Keep the file in place while they are in use.

    Raises:
        FileError: There is no such file.
        UnsafeCheckpointError: Its pickle asks for anything but tensors and plain containers. Nothing has run.
        CheckpointError: It is not a torch file, is damaged or truncated, or contradicts itself.

    Example:
        >>> state = read_torch(Path("RepVGG-A0-train.pth"))  # doctest: +SKIP
        >>> state["stage0.rbr_dense.conv.weight"].shape  # doctest: +SKIP
        (48, 3, 3, 3)
    """
    with naming(path):
        content = map_file(path)
        start = bytes(content[:4])
        if start == ZIP_START:
            return _read_zip(content)
        if start.startswith(PICKLE_START):
            return _read_legacy(content)
        raise CheckpointError(
            "It was not written by torch.save. Was it made by another library, or only half downloaded?"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the name of the file in front of the reason for which it was turned down."""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"The checkpoint '{path}' was not read. {error}") from error


def map_file(path: Path) -> memoryview:
    """Maps a whole file, read-only."""
    if path.is_file() and path.stat().st_size == 0:
        raise CheckpointError("It is empty (0 bytes): it was not written to the end. Download it or save it again.")
    require_file(path, what="checkpoint")
    try:
        with path.open("rb") as handle:
            return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"It cannot be opened: {error.strerror}. Check that it may be read.") from error


def _read_zip(content: memoryview) -> object:
    members = list_members(content)
    roots = [name.removesuffix("/data.pkl") for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError(
            "It is a zip archive without the 'data.pkl' that torch.save writes. Is it a file of another library?"
        )
    root = roots[0]
    if f"{root}/constants.pkl" in members:
        raise CheckpointError(
            "It is a TorchScript program, and a state dict was expected. "
            "Load it with torch.jit.load and save its state_dict() with torch.save."
        )
    order = members.get(f"{root}/byteorder")
    if order is not None and bytes(member_bytes(content, order)[:8]) != b"little":
        raise CheckpointError("It was written on a big-endian machine, which is not supported. Save it on another.")
    pickle = members[f"{root}/data.pkl"]
    if pickle.size > MAX_PICKLE_BYTES:
        raise damaged(f"Its pickle has {pickle.size:,} bytes; {MAX_PICKLE_BYTES:,} at most were expected.")
    storages = StorageTable()
    tree, _ = load_restricted(member_bytes(content, pickle), 0, storages)

    def span(reference: StorageReference) -> tuple[int, int]:
        member = members.get(f"{root}/data/{reference.key}")
        if member is None:
            raise damaged(f"The storage '{shown(reference.key)}' is missing.")
        member_bytes(content, member)
        return member.start, member.size

    return _Builder(content, storages, span).build(tree)


def _read_legacy(content: memoryview) -> object:
    magic, position = load_restricted(content)
    if magic != _LEGACY_MAGIC:
        raise CheckpointError("It is a pickle, but not one of torch.save. Save the state dict with torch.save.")
    protocol, position = load_restricted(content, position)
    if protocol != _LEGACY_PROTOCOL:
        raise damaged(f"It is of torch's old format {shown(protocol)}; {_LEGACY_PROTOCOL} was expected.")
    system, position = load_restricted(content, position)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("It was not written on a little-endian machine, or does not say so. Save it again.")
    storages = StorageTable()
    tree, position = load_restricted(content, position, storages)
    keys, position = load_restricted(content, position)
    if not isinstance(keys, list) or len(keys) > len(storages.references):
        raise damaged("Its list of storages does not fit the tensors it describes.")
    spans: dict[str, tuple[int, int]] = {}
    for key in keys:
        reference = storages.references.get(key) if isinstance(key, str) else None
        if reference is None or key in spans:
            raise damaged(f"It lists a storage '{shown(key)}' that no tensor uses, or lists it twice.")
        size = int.from_bytes(content[position : position + 8], "little", signed=True)
        if size != reference.root_size:
            raise damaged(f"Storage '{shown(key)}' has {size} elements, and its tensors expect {reference.root_size}.")
        spans[key] = (position + 8, size * reference.element.itemsize)
        position += 8 + spans[key][1]
        if position > len(content):
            raise damaged(f"Storage '{shown(key)}' breaks off: the file ends before its {size:,} elements do.")
    if position != len(content):
        # A storage whose type was made narrower than its bytes would show here and nowhere else.
        raise damaged(f"{len(content) - position:,} bytes are left over after its last storage.")

    def span(reference: StorageReference) -> tuple[int, int]:
        if reference.key not in spans:
            raise damaged(f"The storage '{shown(reference.key)}' is missing.")
        return spans[reference.key]

    return _Builder(content, storages, span).build(tree)


class _Builder:
    """Turns what the pickle described into containers and arrays, after checking it against the bytes."""

    def __init__(self, content: memoryview, storages: StorageTable, span: _Span) -> None:
        self.content = content
        self.starts = {key: self._checked_start(root, span) for key, root in storages.references.items()}
        self.arrays: dict[int, npt.NDArray[Any]] = {}
        self.nodes = 0
        self.bytes_left = _FREE_BYTES + _BYTES_PER_FILE_BYTE * len(content)

    def _checked_start(self, root: StorageReference, span: _Span) -> int:
        start, size = span(root)
        expected = root.root_size * root.element.itemsize
        if size != expected:
            raise damaged(f"Storage '{shown(root.key)}' has {size:,} bytes, and its tensors expect {expected:,}.")
        return start

    def build(self, node: object, depth: int = 0) -> object:
        # The pickle may share one part many times over, or put a container into itself. Both end here, because every
        # place is counted, not every object.
        self.nodes += 1
        if depth > _MAX_DEPTH or self.nodes > _MAX_NODES:
            raise damaged(f"It nests deeper than {_MAX_DEPTH} levels, or has more than {_MAX_NODES:,} entries.")
        if isinstance(node, dict):
            return {key: self.build(value, depth + 1) for key, value in node.items()}
        if isinstance(node, list):
            return [self.build(value, depth + 1) for value in node]
        if isinstance(node, tuple):
            return tuple([self.build(value, depth + 1) for value in node])
        if isinstance(node, InertRecord):
            return InertRecord(node.kind, {key: self.build(value, depth + 1) for key, value in node.fields.items()})
        return self._leaf(node)

    def _leaf(self, node: object) -> object:
        if isinstance(node, TensorReference):
            return self._array(node)
        if isinstance(node, StorageReference):
            return self._view(TensorReference(node, node.element, 0, (node.size,), (1,)))
        if isinstance(node, AllowedName) and node.element is not None:
            return node.name  # a dtype, as text: 'torch.float16'
        if isinstance(node, AllowedName | NumberType):
            name = node.name if isinstance(node, AllowedName) else "numpy.dtype"
            raise damaged(f"It holds '{name}' itself where data was expected.")
        return node

    def _array(self, tensor: TensorReference) -> npt.NDArray[Any]:
        array = self.arrays.get(id(tensor))
        if array is None:
            array = self.arrays[id(tensor)] = self._view(tensor)
        else:
            self._spend(array.nbytes)
        return array

    def _spend(self, count: int) -> None:
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise damaged("Its tensors claim far more bytes than the file holds.")

    def _view(self, tensor: TensorReference) -> npt.NDArray[Any]:
        storage, itemsize = tensor.storage, tensor.element.itemsize
        self._spend(itemsize * prod(tensor.shape))
        if 0 in tensor.shape:
            if prod(max(n, 1) for n in tensor.shape) > 2**40:
                raise damaged("It holds an empty tensor of an impossible shape.")
            return np.empty(tensor.shape, tensor.element)
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        held = storage.size * storage.element.itemsize
        if (last + 1) * itemsize > held:
            raise damaged(f"A tensor reaches to byte {(last + 1) * itemsize:,} of a storage of {held:,} bytes.")
        start = self.starts[storage.key] + storage.start * storage.element.itemsize + tensor.offset * itemsize
        # The stride of an axis of length 1 is never used, and torch leaves any number there.
        strides = [step * itemsize if n > 1 else itemsize for n, step in zip(tensor.shape, tensor.strides, strict=True)]
        return np.ndarray(tensor.shape, tensor.element, buffer=self.content, offset=start, strides=strides)
