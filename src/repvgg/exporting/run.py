"""`export`: nothing is handed over unproved.

An artifact is written beside its final name, loaded, compared with the Keras model, and only then renamed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from repvgg.base.files import atomic_output, refuse_existing
from repvgg.base.metadata import Metadata
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.exporting.int8.artifact import Int8Options, Int8Result, write_int8
from repvgg.exporting.proof import compared, proved
from repvgg.exporting.request import checked_request
from repvgg.models.full_precision import in_full_precision
from repvgg.models.layers import all_layers, require_float_weights
from repvgg.models.metadata import get_metadata
from repvgg.targets import TARGETS, Settings
from repvgg.targets.int8 import INT8
from repvgg.verification import VerificationReport, verify


@dataclass(frozen=True)
class Export:
    """What was written: where, how large in bytes, how exact, and whether a training form was converted first.

    For INT8 `int8` says how good it is beside the network in float32; a relative error alone would not.
    """

    path: Path
    size: int
    report: VerificationReport
    converted: bool
    int8: Int8Result | None = None


def export(
    model: Any,
    path: str | Path,
    format: str = "onnx",  # noqa: A002 - Keras's own name for it
    precision: str = "float32",
    calibration: Any = None,
    *,
    batch: int | None = None,
    image_size: int | tuple[int, int] | None = None,
    softmax: bool = False,
    with_preprocessing: bool = False,
    integer_io: str | None = None,
    images: Any = None,
    evaluation: Any = None,
    max_drop: float | None = None,
    scheme: str | None = None,
    processor: str | None = None,
    threads: int | None = None,
    calibration_count: int | None = None,
    seed: int | None = None,
    picture: str | Path | None = None,
    force: bool = False,
) -> Export:
    """Writes a model for another runtime, loads what was written there, and compares.

    A model in training form is converted first, and one that calculates in 16 bits is written in float32, as which its
    weights are stored, or in `precision`. Class names, preprocessing, origin and the verification of the
    conversion travel in the artifact.

    Args:
        path: ends in the target's suffix; a SavedModel is a folder.
        format: a key of `TARGETS`: "onnx", "openvino", "litert", "savedmodel", "keras", "native" (for the engine) or
            "object" (an object file and a C header).
        precision: one of the target's precisions. In "float16" weights are stored so, and calculated with in float32.
            "int8", for ONNX, OpenVINO and LiteRT, is kept if it is about as good as float32 (docs/int8.md).
        calibration: for INT8: images like those the network will get. A folder, best with one sub-folder a class,
            paths, or prepared images, as an array or an iterable of arrays.
        batch: images in every call; any number if None.
        image_size: the size of all images, or (height, width); as open as the model is if None.
        softmax: give probabilities instead of logits.
        with_preprocessing: take pixels (N, H, W, C) in uint8, resized and cropped already, and normalize them inside,
            with the mean and standard deviation of the model's preprocessing.
        integer_io: for INT8 in LiteRT: "int8" or "uint8", for images and answers as integers with scale and zero point,
            as microcontrollers and Edge TPUs want them.
        images: preprocessed images to compare on, besides probe inputs.
        evaluation: for INT8: labelled images to measure accuracy on. A folder of class folders, or a tuple of prepared
            images and labels. Without it top-1 agreement on the calibration images counts.
        max_drop: for INT8: points of accuracy (or percent of images with another class) that may be lost; 1 if None.
        scheme: for INT8: a name of `repvgg.quantization.SCHEMES`, or "fallback"; what is good enough if None.
        processor: for INT8: "portable" (the default), "vnni" or "this": the kind of processor that the artifact has to
            be right on (`repvgg.base.processor.PROCESSORS`). Its metadata say so. For "object": a name of
            `repvgg.engine.isa.PROCESSORS` that this machine can run, "x86-64-v3" (AVX2) by default.
        threads: for "object": how many a call may ask for; 4 if None.
        calibration_count, seed: for INT8: at most how many images are used (256 if None), and which.
        picture: for INT8: write a PNG of what it costs each layer.
        force: replace an artifact that is there.

    Raises:
        UnknownNameError: if there is no such target, scheme or kind of processor.
        InputError: for a precision the target lacks, a wrong suffix, a layer it cannot express.
        OutputExistsError: if the artifact exists and `force` is not set.
        VerificationError: if the artifact's answers differ; it is removed.
        AccuracyError: if no INT8 artifact was good enough; it says what was tried.

    Example:
        >>> export(model, "model.onnx").report.max_relative_error
        8.1e-07
        >>> export(model, "model.tflite", "litert", "float16", image_size=224, softmax=True).size
        16633256
        >>> export(model, "model.xml", "openvino", "int8", "flowers/train", evaluation="flowers/val").int8.report.passed
        True
    """
    path = Path(path)
    machine_code = format in TARGETS and TARGETS[format].machine_code
    given = {
        "calibration": calibration,
        "evaluation": evaluation,
        "max_drop": max_drop,
        "scheme": scheme,
        "processor": None if machine_code else processor,
        "count": calibration_count,
        "seed": seed,
        "picture": None if picture is None else Path(picture),
    }
    int8 = {name: value for name, value in given.items() if value is not None}
    settings = checked_request(
        model,
        path,
        format,
        Settings(
            precision=precision,
            batch=batch,
            image_size=_both_sides(image_size),
            softmax=softmax,
            integer_io=integer_io,
            processor=processor if machine_code else None,
            threads=threads,
        ),
        with_preprocessing=with_preprocessing,
        int8=int8,
        force=force,
    )
    if "picture" in int8:
        refuse_existing(int8["picture"], force=force)
    deployed, metadata, converted = _deployed(model, settings)
    target = TARGETS[format]
    result: Int8Result | None = None
    with atomic_output(path, [path.with_suffix(ending).name for ending in target.beside]) as temporary:
        if precision == INT8:
            options = Int8Options(**int8)
            result = write_int8(deployed, temporary, format, metadata, settings, options, force=force)
            report = compared(deployed, temporary, images)
        else:
            write: Callable[[Any, Path, Metadata, Settings], None] = import_module(target.module).write
            write(deployed, temporary, metadata, settings)
            report = proved(deployed, temporary, target, precision, images)
    parts = [path, *(path.with_suffix(ending) for ending in target.beside)]
    size = sum(file.stat().st_size for part in parts for file in _files(part))
    return Export(path, size, report, converted, result)


def _deployed(model: Any, settings: Settings) -> tuple[Any, Metadata, bool]:
    """The deploy form, what its artifact carries, and whether it had to be converted."""
    require_float_weights(model)
    converted = any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model))
    deployed = reparameterize(model) if converted else in_full_precision(model)
    metadata = replace(get_metadata(model), form="deploy", precision=settings.precision)
    if converted:
        metadata = replace(metadata, verification=verify(model, deployed).to_dict())
    if settings.preprocessing is not None:
        metadata = replace(metadata, input="uint8")
    if settings.softmax:
        metadata = replace(metadata, output="probabilities")
    return deployed, metadata, converted


def _both_sides(image_size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (image_size, image_size) if isinstance(image_size, int) else image_size


def _files(part: Path) -> Iterator[Path]:
    return (file for file in part.rglob("*") if file.is_file()) if part.is_dir() else iter([part])
