"""Where networks run: one row a runtime, and how a network gets there."""

import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import InputError, MissingDependencyError, UnknownNameError
from repvgg.base.files import scratch_folder
from repvgg.base.metadata import Metadata
from repvgg.runners.runner import Runner
from repvgg.targets import TARGETS, Settings

CALIBRATION_IMAGES = 8
"""Of noise: they decide ranges, and ranges make no difference to speed."""

INT8_SCHEME = "per-channel"


@dataclass(frozen=True)
class Runtime:
    """A way to run a network.

    Attributes:
        name: how it is called in tables.
        target: the format that is written for it, a key of `TARGETS`; None for Keras, which runs models as they are.
        packages: what has to be installed, with the extra that brings them.
        exports: what Keras's own `Model.export` calls the format, for networks of any layers; None if it has none, and
            this package writes what it can.
        precision: "float32", or "int8".
    """

    name: str
    target: str | None
    packages: tuple[str, ...] = ()
    extra: str = ""
    exports: str | None = None
    precision: str = "float32"

    def require(self) -> None:
        """Raises `MissingDependencyError` if it is not installed; nothing is imported."""
        for package in self.packages:
            if find_spec(package) is None:
                raise MissingDependencyError(
                    f"The runtime '{self.name}' needs the package '{package}', which is not installed: "
                    f"pip install 'repvgg[{self.extra}]'"
                )


RUNTIMES: Mapping[str, Runtime] = {
    "keras": Runtime("Keras", None),
    "onnx": Runtime("ONNX Runtime", "onnx", ("onnx", "onnxruntime"), "onnx", "onnx"),
    "openvino": Runtime("OpenVINO", "openvino", ("openvino",), "openvino", "openvino"),
    "litert": Runtime("LiteRT", "litert", ("ai_edge_litert",), "litert", "litert"),
    "native": Runtime("Native engine", "native", ("llvmlite",), "engine"),
    "onnx-int8": Runtime("ONNX Runtime INT8", "onnx", ("onnx", "onnxruntime"), "onnx", precision="int8"),
    "openvino-int8": Runtime("OpenVINO INT8", "openvino", ("openvino", "nncf"), "openvino", precision="int8"),
    "litert-int8": Runtime("LiteRT INT8", "litert", ("ai_edge_litert",), "litert", precision="int8"),
}

FLOAT = tuple(name for name, runtime in RUNTIMES.items() if runtime.precision == "float32")
"""What networks run in if nothing is said."""


def get_runtimes(names: Sequence[str]) -> list[Runtime]:
    """The runtimes of these names, installed.

    Raises:
        UnknownNameError: for a name that is not in the table.
        InputError: if one is named twice.
        MissingDependencyError: if one is not installed.
    """
    for name in names:
        if name not in RUNTIMES:
            raise UnknownNameError("runtime", name, RUNTIMES)
        RUNTIMES[name].require()
    if len(set(names)) != len(names):
        raise InputError(f"A runtime is named twice: {', '.join(names)}. Name each once.")
    return [RUNTIMES[name] for name in names]


def set_keras_threads(threads: int) -> None:
    """The number of threads of Keras's backend, which has one for the whole process.

    Raises:
        InputError: if it cannot be set any more, or at all.
    """
    import keras

    match keras.backend.backend():
        case "tensorflow":
            import tensorflow as tf

            # Two settings: operations, and what runs several of them at once.
            for name in ("intra_op_parallelism_threads", "inter_op_parallelism_threads"):
                if getattr(tf.config.threading, f"get_{name}")() == threads:
                    continue
                try:
                    getattr(tf.config.threading, f"set_{name}")(threads)
                except RuntimeError as error:
                    raise InputError(
                        f"TensorFlow has calculated in this process already, so its threads cannot become {threads} "
                        "any more. Start a new process, or leave `threads` as it is."
                    ) from error
        case "torch":
            import torch

            torch.set_num_threads(threads)
        case backend:
            raise InputError(
                f"The number of threads of the backend '{backend}' cannot be chosen. Leave `threads` out, or 'keras' "
                "out of the runtimes."
            )


def load(runtime: Runtime, model: Any, *, stock: bool, size: int, threads: int) -> Runner:
    """`model` as it runs there.

    Args:
        model: a Keras model in deploy form.
        stock: has layers that only Keras's own `Model.export` writes.
        size: pixels a side of the images it will get.

    Raises:
        InputError: if it cannot be written; the message is the reason that a table shows.
    """
    if runtime.target is None:
        from repvgg.runners.keras import KerasRunner

        return KerasRunner(model)
    from repvgg.runners import load_runner

    # Files may be mapped into memory while they run; on Linux they stay there when their folder goes.
    with scratch_folder() as folder:
        path = folder / f"network{TARGETS[runtime.target].suffix}"
        _write(runtime, model, path, stock=stock, size=size)
        return load_runner(path, threads=threads)


def _write(runtime: Runtime, model: Any, path: Path, *, stock: bool, size: int) -> None:
    if runtime.target is None:
        raise InputError(f"{runtime.name} writes no file.")
    if runtime.precision == "int8":
        if stock:
            raise InputError("INT8 is made of networks that this package writes itself")
        from repvgg.quantization.schemes import SCHEMES
        from repvgg.targets.int8 import INT8_TARGETS

        images = np.random.default_rng(0).standard_normal((CALIBRATION_IMAGES, size, size, 3)).astype(np.float32)
        target, scheme = INT8_TARGETS[runtime.target], SCHEMES[INT8_SCHEME]
        target.save(target.quantize(model, images, scheme, (), Settings()), path, Metadata())
    elif stock and runtime.exports is not None:
        _write_by_keras(runtime, model, path)
    else:
        write: Callable[[Any, Path, Metadata, Settings], None] = import_module(TARGETS[runtime.target].module).write
        write(model, path, Metadata(), Settings())


def _write_by_keras(runtime: Runtime, model: Any, path: Path) -> None:
    """Keras's own export, whose errors are of many kinds and whose talk is about itself."""
    import keras

    # From Python 3.13 on (PEP 667) OpenVINO's reader of TensorFlow's graphs deletes a name that is not bound; it reads
    # ONNX instead.
    by_onnx = runtime.exports == "openvino" and sys.version_info >= (3, 13)
    in_onnx = by_onnx or runtime.exports == "onnx"
    if in_onnx and keras.backend.backend() == "tensorflow" and find_spec("tf2onnx") is None:
        raise InputError("Keras writes ONNX files with tf2onnx: pip install 'repvgg[benchmark]'")
    from repvgg.base.quiet import quiet, quiet_libraries

    try:
        with quiet(), quiet_libraries(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if by_onnx:
                import openvino

                model.export(str(path.with_suffix(".onnx")), format="onnx", verbose=False)
                openvino.save_model(openvino.Core().read_model(path.with_suffix(".onnx")), path, compress_to_fp16=False)
            else:
                model.export(str(path), format=runtime.exports, verbose=False)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"Keras's export to {runtime.exports} fails: {first[:120]}") from error
