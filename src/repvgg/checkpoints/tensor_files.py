"""The tensors of a checkpoint file, whatever kind of file it is and whatever a training script wrapped around them."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from repvgg.base.errors import CheckpointError, UnknownNameError
from repvgg.checkpoints.errors import damaged, shown
from repvgg.checkpoints.torch_format.reader import PICKLE_START, ZIP_START, map_file, naming, read_torch

Container = Literal["torch-zip", "torch-legacy", "safetensors"]

# Training scripts keep the weights under one of these. Averaged weights (ema) come last: they are another model, which
# only whoever asks for it should get.
WRAPPERS: Final = ("state_dict", "model", "module", "model_ema", "state_dict_ema", "ema")

# Put before every name by torch's data-parallel wrappers and by torch.compile.
PREFIXES: Final = ("module.", "_orig_mod.")

# Counts of batches that a normalization saw, and of weights that torch's AveragedModel averaged.
COUNTERS: Final = ("num_batches_tracked", "n_averaged")

_MAX_WRAPPING = 3
_MAX_SAFETENSORS_HEADER = 16 * 2**20
_FOREIGN_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "It is an HDF5 file: if Keras wrote it, load it with Keras."),
    (b"\x1f\x8b", "It is packed with gzip. Unpack it first."),
    (b"\x93NUMPY", "It is a NumPy array, and not the named tensors of a model."),
    (b"<", "It is a web page or another text: the download probably failed."),
)


@dataclass(frozen=True, slots=True)
class TensorFile:
    """The tensors of one file, and how they were found in it.

    Attributes:
        container: The kind of file, told from its content.
        tensors: Names without wrappers and prefixes, arrays in the file's own layout (kernels OIHW). Those of torch
            files are read-only views on the mapped file.
        wrapper: The entries that were opened, outermost first: `("model",)`; empty for a plain state dict.
        prefix: What was taken off every name, such as `module.`; often empty.
        passed_over: Entries that may hold weights too and were not taken, such as `model_ema`.
        beside: The other entries beside the wrapper, such as `optimizer` and `epoch`.
        metadata: The notes of a safetensors file.
    """

    container: Container
    tensors: dict[str, npt.NDArray[Any]]
    wrapper: tuple[str, ...] = ()
    prefix: str = ""
    passed_over: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)


def read_tensors(path: Path, *, entry: str | None = None) -> TensorFile:
    """Reads the named tensors of a torch or safetensors file.

    A plain state dict is taken as it is. Otherwise the first of `WRAPPERS` that the file has is opened: `state_dict`,
    `model`, `module`, `model_ema`, `state_dict_ema`, `ema`; and so on inwards, at most three times.

    Args:
        path: The file. Its kind is told from its content; its name does not matter.
        entry: Opens this entry of a torch file instead, such as `"model_ema"`.

    Returns:
        The tensors, and what was opened, taken off and passed over to get them.

    Raises:
        FileError: There is no such file.
        UnsafeCheckpointError: Its pickle asks for anything but tensors and plain containers. Nothing has run.
        CheckpointError: It is damaged, of an unknown kind, or contains no state dict.
        UnknownNameError: It has no entry called `entry`.

    Example:
        >>> file = read_tensors(Path("checkpoint.pth"))  # doctest: +SKIP
        >>> file.container, file.wrapper, file.prefix, file.passed_over  # doctest: +SKIP
        ('torch-zip', ('model',), 'module.', ('model_ema',))
    """
    with naming(path):
        container = _container(path)
    if container == "safetensors":
        with naming(path):
            if entry is not None:
                raise CheckpointError(f"It is a safetensors file, which has no entries, and '{entry}' was asked for.")
            return _finished(container, *_read_safetensors(path))
    tree = read_torch(path)
    with naming(path):
        wrapped = _unwrapped(tree, entry)
        return _finished(container, wrapped.tensors, {}, wrapped)


def _container(path: Path) -> Container:
    content = map_file(path)
    start = bytes(content[:16])
    if start.startswith(ZIP_START):
        return "torch-zip"
    # Before the pickle: a safetensors file begins with a length, and its lowest byte can be a pickle's first.
    if start[8:9] == b"{":
        header_bytes = int.from_bytes(start[:8], "little")
        if header_bytes > min(len(content) - 8, _MAX_SAFETENSORS_HEADER):
            raise damaged(f"It looks like a safetensors file, but claims a header of {header_bytes:,} bytes.")
        return "safetensors"
    if start.startswith(PICKLE_START):
        return "torch-legacy"
    for known_start, meaning in _FOREIGN_STARTS:
        if start.startswith(known_start):
            raise CheckpointError(f"{meaning} A torch file (.pth, .pt, .bin) or a safetensors file was expected.")
    raise CheckpointError(
        "It is of an unknown kind, or damaged. A torch file (.pth, .pt, .bin) or a safetensors file was expected."
    )


def _read_safetensors(path: Path) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            for name in file.keys():  # noqa: SIM118  # a safetensors file is not iterable
                try:
                    tensors[name] = file.get_tensor(name)
                except (AttributeError, TypeError) as error:
                    kind = file.get_slice(name).get_dtype()
                    raise CheckpointError(
                        f"Its tensor '{shown(name)}' is of type {kind}, which NumPy does not have. "
                        "Save it as float32, float16 or bfloat16."
                    ) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(f"It looks like a safetensors file, but safetensors says: {shown(str(error))}.") from error
    return tensors, metadata


@dataclass(frozen=True, slots=True)
class _Unwrapped:
    tensors: dict[str, npt.NDArray[Any]]
    wrapper: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


def _unwrapped(tree: object, entry: str | None) -> _Unwrapped:
    wrapper: list[str] = []
    passed_over: list[str] = []
    beside: list[str] = []
    node = tree
    for depth in range(_MAX_WRAPPING + 1):
        if not isinstance(node, dict):
            where = f"entry '{'.'.join(wrapper)}' is" if wrapper else "content is"
            raise CheckpointError(f"Its {where} a {type(node).__name__}; a dictionary of named tensors was expected.")
        if entry is None or depth > 0:
            tensors = {name: value for name, value in node.items() if isinstance(value, np.ndarray)}
            if tensors and len(tensors) == len(node) and all(isinstance(name, str) for name in tensors):
                return _Unwrapped(tensors, tuple(wrapper), tuple(passed_over), tuple(beside))
        holders = [name for name in WRAPPERS if isinstance(node.get(name), dict)]
        if entry is not None and depth == 0:
            if entry not in node:
                raise UnknownNameError("entry in the checkpoint", entry, [shown(name) for name in list(node)[:40]])
            taken = entry
        elif holders:
            taken = holders[0]
        else:
            raise CheckpointError(_no_state_dict(node))
        wrapper.append(taken)
        passed_over += [name for name in holders if name != taken]
        beside += [shown(name) for name in node if name != taken and name not in holders]
        node = node[taken]
    raise CheckpointError(f"It wraps the weights more than {_MAX_WRAPPING} times. Save the state dict alone.")


def _no_state_dict(node: Mapping[object, object]) -> str:
    others = [shown(name) for name, value in node.items() if not isinstance(value, np.ndarray)]
    if not others:
        return "It contains no tensors. Save the state dict of the model."
    listed = ", ".join(others[:5]) + (", ..." if len(others) > 5 else "")
    if len(others) < len(node):
        return f"Among its tensors are entries that are not tensors: {listed}. Save the state dict of the model alone."
    return (
        f"It contains no state dict. Its entries are: {listed}; one of these was expected: {', '.join(WRAPPERS)}. "
        "If the weights are in another entry, name it."
    )


def _finished(
    container: Container,
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, str],
    found: _Unwrapped | None = None,
) -> TensorFile:
    found = found or _Unwrapped({})
    weights = [name for name in tensors if name.rpartition(".")[2] not in COUNTERS]
    prefix = "".join(_shared_prefixes(weights))
    kept = {name.removeprefix(prefix): tensors[name] for name in weights}
    if not kept:
        raise CheckpointError("It contains no tensors. Save the state dict of the model.")
    return TensorFile(container, kept, found.wrapper, prefix, found.passed_over, found.beside, dict(metadata))


def _shared_prefixes(names: Collection[str]) -> Iterator[str]:
    stripped = ""
    while names:
        shared = next((p for p in PREFIXES if all(name.startswith(stripped + p) for name in names)), None)
        if shared is None:
            return
        stripped += shared
        yield shared
