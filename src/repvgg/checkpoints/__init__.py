"""Checkpoints of PyTorch's RepVGG implementations, in and out.

Names are loaded when they are first used: reading and describing a file needs neither Keras nor PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repvgg.checkpoints.bn_recalibration import recalibrate_batch_norm
    from repvgg.checkpoints.checkpoint import Checkpoint, read_checkpoint
    from repvgg.checkpoints.describe import CheckpointDescription, describe_checkpoint
    from repvgg.checkpoints.dialects import DIALECTS
    from repvgg.checkpoints.loading import build_model, load_checkpoint
    from repvgg.checkpoints.saving import save_checkpoint

_HOMES = {
    "DIALECTS": "dialects",
    "Checkpoint": "checkpoint",
    "CheckpointDescription": "describe",
    "build_model": "loading",
    "describe_checkpoint": "describe",
    "load_checkpoint": "loading",
    "read_checkpoint": "checkpoint",
    "save_checkpoint": "saving",
    "recalibrate_batch_norm": "bn_recalibration",
}

__all__ = [
    "DIALECTS",
    "Checkpoint",
    "CheckpointDescription",
    "build_model",
    "describe_checkpoint",
    "load_checkpoint",
    "read_checkpoint",
    "recalibrate_batch_norm",
    "save_checkpoint",
]

_FORMER_NAMES = {"settle_statistics": "recalibrate_batch_norm"}
"""What people's programs may still import."""


def __getattr__(name: str) -> Any:
    name = _FORMER_NAMES.get(name, name)
    if name not in _HOMES:
        raise AttributeError(f"module 'repvgg.checkpoints' has no attribute '{name}'")
    value = getattr(import_module(f"repvgg.checkpoints.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
