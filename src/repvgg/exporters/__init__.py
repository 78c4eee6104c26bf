"""Artifacts: one file a target, which writes; `repvgg.runners` reads them back, with the target's own runtime.

Nothing is handed over unproved: an artifact is written beside its final name, loaded, compared with the Keras model,
and only then renamed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from repvgg.blocks import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.errors import InputError, UnknownNameError, VerificationError
from repvgg.files import atomic_output, refuse_existing
from repvgg.layers import all_layers
from repvgg.metadata import Metadata, get_metadata
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.verification import VerificationReport, verify

RTOL = 1e-4
"""Relative error of an artifact in float32: other kernels, another order of summation, nothing else."""


@dataclass(frozen=True)
class Target:
    """A kind of artifact: the module that writes it, its file ending, and its precisions."""

    module: str
    suffix: str
    precisions: tuple[str, ...] = ("float32",)


TARGETS: Mapping[str, Target] = {
    "keras": Target("repvgg.exporters.keras", ".keras"),
    "onnx": Target("repvgg.exporters.onnx", ".onnx"),
}


@dataclass(frozen=True)
class Export:
    """What was written: where, how large in bytes, how exact, and whether a training form was converted first."""

    path: Path
    size: int
    report: VerificationReport
    converted: bool


def export(
    model: Any,
    path: str | Path,
    format: str = "onnx",  # noqa: A002 - Keras's own name for it
    precision: str = "float32",
    calibration: Any = None,
    *,
    images: Any = None,
    force: bool = False,
) -> Export:
    """Writes a model for another runtime, loads the file there, and compares.

    A model in training form is converted first. Class names and preprocessing travel in the file.

    Args:
        path: ends in the target's suffix.
        format: a key of `TARGETS`.
        precision: one of the target's precisions.
        calibration: images for an integer precision; no target has one yet.
        images: preprocessed images to compare on, besides probe inputs.
        force: replace a file that is there.

    Raises:
        UnknownNameError: if there is no such target.
        InputError: for a precision the target lacks, a wrong suffix, a layer it cannot express.
        OutputExistsError: if the file exists and `force` is not set.
        VerificationError: if the file's answers differ; it is removed.

    Example:
        >>> export(model, "model.onnx").report.max_relative_error
        8.1e-07
    """
    if format not in TARGETS:
        raise UnknownNameError("export format", format, TARGETS)
    target, path = TARGETS[format], Path(path)
    if precision not in target.precisions:
        raise InputError(f"'{format}' is written in {', '.join(target.precisions)}; '{precision}' was asked for.")
    if calibration is not None:
        raise InputError(f"`calibration` is for integer precisions; '{precision}' needs none.")
    if path.suffix != target.suffix:
        raise InputError(f"A file of format '{format}' ends in '{target.suffix}'. Received: '{path.name}'.")
    refuse_existing(path, force=force)
    converted = any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model))
    deployed = reparameterize(model) if converted else model
    write: Callable[[Any, Path, Metadata], None] = import_module(target.module).write
    with atomic_output(path) as temporary:
        write(deployed, temporary, replace(get_metadata(model), form="deploy"))
        runner = load_runner(temporary)
        runner.name = path.name
        reference = KerasRunner(deployed)
        reports = [verify(reference, runner, rtol=RTOL)]
        if images is not None:
            reports.append(verify(reference, runner, images, rtol=RTOL))
        report = max(reports, key=lambda report: report.max_relative_error)
        if not report.passed:
            raise VerificationError(f"'{path.name}' was not kept: {report.summary()}")
    return Export(path, path.stat().st_size, report, converted)
