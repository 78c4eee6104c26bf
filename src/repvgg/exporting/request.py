"""Whether what was asked for can be done, before anything is converted or written."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError, OutputExistsError, UnknownNameError
from repvgg.base.files import refuse_existing
from repvgg.base.processor import PORTABLE, get_processor
from repvgg.models.metadata import get_metadata
from repvgg.runners import SAVED_MODEL
from repvgg.targets import TARGETS, Settings, Target
from repvgg.targets.int8 import INT8, INT8_TARGETS, get_int8_target, require_faithful
from repvgg.targets.object.run import require_runnable
from repvgg.targets.object.write import PROCESSOR

INTEGER_TYPES = ("int8", "uint8")


def checked_request(
    model: Any,
    path: Path,
    target_name: str,
    settings: Settings,
    *,
    with_preprocessing: bool,
    int8: Mapping[str, Any],
    force: bool,
) -> Settings:
    """The settings, complete.

    Args:
        int8: the options for INT8 that were given, by name.

    Raises:
        UnknownNameError: if there is no such target.
        InputError: for a precision or an option that the target lacks, or a wrong suffix.
        OutputExistsError: if the artifact exists and `force` is not set.
    """
    if target_name not in TARGETS:
        raise UnknownNameError("export format", target_name, TARGETS)
    target = TARGETS[target_name]
    if settings.precision == INT8:
        _check_int8(target_name, int8)
        _check_classifier(model)
    else:
        _check_float(target_name, target, settings.precision, int8)
    _check_integer_io(target_name, settings, with_preprocessing=with_preprocessing)
    if not target.adapts and (with_preprocessing or settings != Settings(precision=settings.precision)):
        raise InputError(
            f"A file of format '{target_name}' holds the model as it is: batch, image_size, softmax and "
            "with_preprocessing are for the other formats."
        )
    if target.machine_code:
        _check_machine_code(model, settings, with_preprocessing=with_preprocessing)
    elif settings.threads is not None:
        raise InputError("`threads` is for the format 'object'; other files are told when they are loaded.")
    _check_name(path, target_name, target)
    for part in (path, *(path.with_suffix(ending) for ending in target.beside)):
        refuse_existing(part, force=force)
        _refuse_other_kind(part, is_folder=not target.suffix)
    if not with_preprocessing:
        return settings
    preprocessing = get_metadata(model).preprocessing
    if preprocessing is None:
        raise InputError(
            f"'{model.name}' carries no preprocessing to write into the artifact. Set it with "
            "repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(...))."
        )
    return replace(settings, preprocessing=preprocessing)


def _check_float(target_name: str, target: Target, precision: str, int8: Mapping[str, Any]) -> None:
    if precision not in target.precisions:
        known = [*target.precisions, *([INT8] if target_name in INT8_TARGETS else [])]
        raise InputError(f"'{target_name}' is written in {', '.join(known)}; '{precision}' was asked for.")
    if int8:
        raise InputError(f"`{next(iter(int8))}` is for integer precisions; '{precision}' needs none.")


def _check_int8(target_name: str, int8: Mapping[str, Any]) -> None:
    get_int8_target(target_name)
    if "calibration" not in int8:
        raise InputError(
            "INT8 needs to see images like those the network will get: calibration=... (--calibration FOLDER). "
            "A few hundred of the training images will do."
        )
    processor = int8.get("processor", PORTABLE)
    get_processor(processor)
    if "evaluation" in int8:
        require_faithful(target_name, processor)


def _check_classifier(model: Any) -> None:
    shapes = [tuple(output.shape) for output in model.outputs]
    if [len(shape) for shape in shapes] != [2] and not isinstance(model.output, dict):
        raise InputError(
            f"INT8 is for classifiers, whose classes tell whether it is good enough, and '{model.name}' gives "
            f"{' and '.join(map(str, shapes))}. Export it in float32 or float16."
        )


def _check_integer_io(target_name: str, settings: Settings, *, with_preprocessing: bool) -> None:
    if settings.integer_io is None:
        return
    if settings.integer_io not in INTEGER_TYPES:
        raise InputError(f"Integer ends are {' or '.join(INTEGER_TYPES)}. Received: '{settings.integer_io}'.")
    if target_name != "litert" or settings.precision != INT8:
        raise InputError(
            "Integer ends are for LiteRT in INT8 (a .tflite file, --precision int8); "
            f"'{target_name}' in {settings.precision} was asked for."
        )
    for option, given in (("with_preprocessing", with_preprocessing), ("softmax", settings.softmax)):
        if given:
            raise InputError(
                f"`{option}` is calculated in float32, which a network with integer ends does without. Leave it out: "
                "whoever runs the network does that, with the scale and zero point in the file."
            )


def _check_machine_code(model: Any, settings: Settings, *, with_preprocessing: bool) -> None:
    require_runnable(settings.processor or PROCESSOR)
    if settings.threads is not None and settings.threads < 1:
        raise InputError(f"`threads` must be at least 1. Received: {settings.threads}.")
    if with_preprocessing:
        raise InputError(
            "An object file takes normalized images; mean and standard deviation stand in its header. Leave "
            "with_preprocessing (--with-preprocessing) out."
        )
    if settings.image_size is None and None in model.inputs[0].shape[1:3]:
        raise InputError(
            f"An object file is made for images of one size, and '{model.name}' takes any. Say which: image_size=224 "
            "(--size 224)."
        )


def _check_name(path: Path, target_name: str, target: Target) -> None:
    if target.suffix and path.suffix != target.suffix:
        raise InputError(f"A file of format '{target_name}' ends in '{target.suffix}'. Received: '{path.name}'.")
    others = {other.suffix for other in TARGETS.values() if other.suffix}
    if not target.suffix and path.suffix in others:
        raise InputError(
            f"An artifact of format '{target_name}' is a folder, and '{path.name}' ends as a file of another format."
        )


def _refuse_other_kind(path: Path, *, is_folder: bool) -> None:
    """Only an artifact of the same kind is replaced, even by --force: a folder may hold anything."""
    if path.is_dir() and not is_folder:
        raise OutputExistsError(f"'{path}' is a folder, and a file was to be written there. Choose another name.")
    if path.is_dir() and any(path.iterdir()) and not (path / SAVED_MODEL).exists():
        raise OutputExistsError(
            f"'{path}' is a folder and not a SavedModel, so it is not replaced. Choose another name."
        )
    if path.is_file() and is_folder:
        raise OutputExistsError(f"'{path}' is a file, and a folder was to be written there. Choose another name.")
