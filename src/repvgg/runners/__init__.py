"""Everything that can be run, as a `Runner`: one file a runtime, and the table of file endings."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, InputError
from repvgg.base.files import require_file
from repvgg.base.processor import warn_of_overflow
from repvgg.runners.runner import Runner

SAVED_MODEL = "saved_model.pb"
"""The file by which a SavedModel, which is a folder, is known."""

# Ending -> (module, class). A module is imported when its ending is met: no runtime is loaded that is not used.
RUNNERS: dict[str, tuple[str, str]] = {
    ".keras": ("repvgg.runners.keras", "KerasRunner"),
    ".onnx": ("repvgg.targets.onnx.run", "OnnxRunner"),
    ".tflite": ("repvgg.targets.litert.run", "LiteRTRunner"),
    ".xml": ("repvgg.targets.openvino.run", "OpenVINORunner"),
    ".repvgg": ("repvgg.targets.native.run", "NativeRunner"),
    SAVED_MODEL: ("repvgg.targets.savedmodel.run", "SavedModelRunner"),
}


def load_runner(path: str | Path, *, threads: int | None = None) -> Runner:
    """Loads an artifact with its own runtime; warns of one in INT8 that was made for other processors than this one.

    Args:
        path: a `.keras`, `.onnx`, `.tflite` or `.repvgg` file, the `.xml` of an OpenVINO model whose `.bin` is beside
            it, or the folder of a SavedModel.
        threads: to calculate with; as many as the runtime chooses if None. Keras's backends, which run `.keras` files
            and SavedModels, have one number for the whole process, and set it themselves.

    Raises:
        FileError: if it is missing, damaged or of an unknown kind.
        MissingDependencyError: if the runtime is not installed.
        InputError: if `threads` cannot be chosen there.

    Example:
        >>> runner = load_runner("digits.onnx")
        >>> runner(images).shape                      # images: (8, 32, 32, 3), float32
        (8, 10)
    """
    path = Path(path)
    module, name = RUNNERS[_ending(path)]
    loader: Callable[[Path, int | None], Runner] = getattr(import_module(module), name).load
    runner = loader(path, threads)
    warn_of_overflow(path.name, (runner.metadata.quantization or {}).get("processor"))
    return runner


def _ending(path: Path) -> str:
    if path.is_dir():
        if not (path / SAVED_MODEL).exists():
            raise FileError(f"'{path}' is a folder without '{SAVED_MODEL}', so it is not a model that can be run.")
        require_file(path / SAVED_MODEL, what="model")
        return SAVED_MODEL
    endings = [ending for ending in RUNNERS if ending != SAVED_MODEL]
    if path.suffix not in endings:
        raise FileError(
            f"'{path}' ends in none of {', '.join(endings)}, and is not a SavedModel's folder; these are "
            "what can be run."
        )
    require_file(path, what="model")
    return path.suffix


def as_runner(network: Any, name: str = "network") -> Runner:
    """A `Runner` for a model, a path, a callable from images to logits, or a `Runner` itself.

    A Keras model that calculates in 16 bits is run in float32, as which its weights are stored.

    Raises:
        InputError: for anything else.
    """
    if isinstance(network, Runner):
        return network
    if isinstance(network, str | Path):
        return load_runner(network)
    import keras

    if isinstance(network, keras.Model):
        from repvgg.models.full_precision import in_full_precision
        from repvgg.runners.keras import KerasRunner

        return KerasRunner(in_full_precision(network))
    if callable(network):
        from repvgg.runners.function import FunctionRunner

        return FunctionRunner(network, name)
    raise InputError(
        f"A keras.Model, a path, a callable or a Runner was expected, and a {type(network).__name__} came."
    )
