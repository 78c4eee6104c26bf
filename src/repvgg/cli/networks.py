"""Any network from a path: what `load_runner` takes, and checkpoints of other frameworks."""

from pathlib import Path
from typing import TYPE_CHECKING

from repvgg.base.errors import FileError

if TYPE_CHECKING:
    from repvgg.runners.runner import Runner

CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")

NETWORK_HELP = "A .keras file, a PyTorch checkpoint (.pth, .pt, .bin, .safetensors), or an exported file such as .onnx."

_WITHOUT_KERAS = (".onnx", ".tflite", ".xml")
"""Files that run without Keras and TensorFlow, which then need not be started."""


def load_network(path: Path) -> "Runner":
    """The network in `path`, ready to run; a checkpoint's has the file's form and no class names of its own.

    Raises:
        FileError: if it is missing, damaged or of an unknown kind.
        MissingDependencyError: if its runtime is not installed.
    """
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import start_keras
    from repvgg.runners import RUNNERS, load_runner

    known = (*(ending for ending in RUNNERS if ending.startswith(".")), *CHECKPOINT_SUFFIXES)
    if path.suffix not in known and not path.is_dir():
        raise FileError(
            f"'{path}' ends in none of {', '.join(known)}, and is no folder of a SavedModel; these are what can be run."
        )
    if path.suffix not in _WITHOUT_KERAS:
        start_keras()
    with progress_bar(f"loading {path.name}"):
        if path.suffix not in CHECKPOINT_SUFFIXES or path.is_dir():
            return load_runner(path)
        from repvgg.checkpoints import load_checkpoint
        from repvgg.runners.keras import KerasRunner

        return KerasRunner(load_checkpoint(path), name=path.name)
