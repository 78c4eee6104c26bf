"""`export`: nothing is handed over unproved.

An artifact is written beside its final name, loaded, compared with the Keras model, and only then renamed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from repvgg.blocks import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.errors import InputError, UnknownNameError, VerificationError
from repvgg.exporters import TARGETS, TOLERANCES, Settings
from repvgg.files import atomic_output, refuse_existing
from repvgg.layers import all_layers
from repvgg.metadata import Metadata, get_metadata
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.verification import VerificationReport, verify


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
    write: Callable[[Any, Path, Metadata, Settings], None] = import_module(target.module).write
    settings = Settings(precision=precision)
    with atomic_output(path) as temporary:
        write(deployed, temporary, replace(get_metadata(model), form="deploy"), settings)
        report = _proved(deployed, temporary, TOLERANCES[precision], images)
    return Export(path, path.stat().st_size, report, converted)


def _proved(deployed: Any, path: Path, rtol: float, images: Any) -> VerificationReport:
    """Loads what was written and compares it on probe inputs, and on the caller's images if there are any.

    Raises:
        VerificationError: if it differs.
    """
    reference, runner = KerasRunner(deployed), load_runner(path)
    reports = [verify(reference, runner, rtol=rtol)]
    if images is not None:
        reports.append(verify(reference, runner, images, rtol=rtol))
    report = max(reports, key=lambda report: report.max_relative_error)
    if not report.passed:
        raise VerificationError(f"'{path.name}' was not kept: {report.summary()}")
    return report
