"""The whole state of a training run in one file, from which it goes on bit for bit.

A file holds every variable (weights, running statistics, optimizer, metrics of the epoch under way) and where the run
is. It is written beside its final name and renamed; the one before it is kept, so that a damaged file costs one
interval and not the run.
"""

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import CheckpointError
from repvgg.base.files import atomic_output

KEPT = 2
"""Checkpoints in the folder: the last one, and one more in case that is damaged."""

_PREFIX, _SUFFIX = "step-", ".safetensors"


@dataclass
class Progress:
    """Where a run is.

    Attributes:
        step: training steps done since the beginning.
        history: a row of figures for each finished epoch.
        best_epoch, best_accuracy: of the best model so far, by its validation accuracy in 0 to 1.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int | None = None
    best_accuracy: float = -1.0


def save_state(folder: Path, tensors: Mapping[str, np.ndarray], progress: Progress) -> Path:
    """Writes a checkpoint and removes all but the last `KEPT`.

    Raises:
        CheckpointError: if it cannot be written, as on a full disk; what was there before is untouched.
    """
    from safetensors.numpy import save_file

    path = folder / f"{_PREFIX}{progress.step:09d}{_SUFFIX}"
    contiguous = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(asdict(progress)), "crc32": str(_checksum(contiguous))}
    try:
        with atomic_output(path) as temporary:
            save_file(contiguous, temporary, metadata)
    except Exception as error:
        kept = saved_steps(folder)
        last = f"The last good state is of step {kept[-1]}" if kept else "No earlier state was saved"
        raise CheckpointError(
            f"The state of step {progress.step} cannot be written to '{folder}': {error}. {last}; make room, then go "
            "on with --resume."
        ) from error
    for step in saved_steps(folder)[:-KEPT]:
        _path(folder, step).unlink(missing_ok=True)
    return path


def load_state(folder: Path, tell: Callable[[str], None]) -> tuple[dict[str, np.ndarray], Progress] | None:
    """The last checkpoint that is whole, or None if there is none at all; a damaged one is told of and passed over.

    Raises:
        CheckpointError: if there are checkpoints, and every one is damaged.
    """
    steps = saved_steps(folder)
    for step in reversed(steps):
        path = _path(folder, step)
        try:
            return _read(path)
        except CheckpointError as error:
            tell(f"{error} Going back to the checkpoint before it.")
    if steps:
        raise CheckpointError(f"Every checkpoint in '{folder}' is damaged, so the run cannot go on. Start it anew.")
    return None


def saved_steps(folder: Path) -> list[int]:
    """The steps of all checkpoints in `folder`, in order."""
    names = [path.name for path in folder.glob(f"{_PREFIX}*{_SUFFIX}")]
    return sorted(int(name[len(_PREFIX) : -len(_SUFFIX)]) for name in names)


def _read(path: Path) -> tuple[dict[str, np.ndarray], Progress]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        progress = Progress(**json.loads(metadata["progress"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"The checkpoint '{path}' is damaged: {error}.") from error
    if _checksum(tensors) != int(metadata.get("crc32", -1)):
        raise CheckpointError(f"The checkpoint '{path}' is damaged: its checksum does not match.")
    return tensors, progress


def _path(folder: Path, step: int) -> Path:
    return folder / f"{_PREFIX}{step:09d}{_SUFFIX}"


def _checksum(tensors: Mapping[str, np.ndarray]) -> int:
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(name.encode(), value)
        value = zlib.crc32(np.asarray(tensors[name], order="C").tobytes(), value)
    return value


def read_variables(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Copies of Keras variables as arrays."""
    import keras

    # Not of their values: several replicas in TensorFlow have one each, which the variable brings together.
    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in variables.items()}


def write_variables(variables: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Assigns arrays to Keras variables of the same names; all must fit, or none is touched.

    Raises:
        CheckpointError: naming what does not fit.
    """
    missing, left = sorted(set(variables) - set(tensors)), sorted(set(tensors) - set(variables))
    if missing or left:
        raise CheckpointError(
            f"The checkpoint is of another training: it lacks {len(missing)} of this one's variables "
            f"({', '.join(missing[:3]) or 'none'}) and has {len(left)} others ({', '.join(left[:3]) or 'none'})."
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != tensors[name].shape:
            raise CheckpointError(
                f"The checkpoint is of another training: '{name}' has the shape {tensors[name].shape}, and "
                f"{tuple(variable.shape)} is needed."
            )
    for name, variable in variables.items():
        variable.assign(tensors[name])
