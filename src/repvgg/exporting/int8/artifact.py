"""An INT8 artifact in a file, with everything that was found out about it."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repvgg.base.errors import AccuracyError
from repvgg.base.metadata import Metadata
from repvgg.base.processor import PORTABLE
from repvgg.exporting.int8.picture import draw_layers
from repvgg.exporting.int8.report import Int8Report
from repvgg.exporting.int8.scores import Evaluation
from repvgg.exporting.int8.search import MAX_DROP, find_int8
from repvgg.quantization.calibration import COUNT, Source, calibration_images
from repvgg.quantization.sensitivity import LayerRow, layer_rows
from repvgg.runners.classifier import preprocessing_of
from repvgg.runners.keras import KerasRunner
from repvgg.targets import Settings
from repvgg.targets.int8 import get_int8_target


@dataclass(frozen=True)
class Int8Options:
    """How to quantize, and when the result is good enough.

    Attributes:
        calibration: a folder of images, best with one sub-folder a class, paths, or prepared images.
        evaluation: a folder of class folders, labelled images, or arrays of images and labels; if None, top-1
            agreement on the calibration images counts.
        max_drop: points of accuracy, or percent of images that get another class, that may be lost.
        scheme: a name of `SCHEMES`, or "fallback"; if None, the default and, if that is not enough, the fallback
            schedule.
        processor: a name of `PROCESSORS`: which the artifact has to be right on.
        count: calibration images at most.
        seed: which they are.
        picture: where to write a PNG of the layers, whether an artifact is kept or not.
    """

    calibration: Source
    evaluation: Evaluation = None
    max_drop: float = MAX_DROP
    scheme: str | None = None
    processor: str = PORTABLE
    count: int = COUNT
    seed: int = 0
    picture: Path | None = None


@dataclass(frozen=True)
class Int8Result:
    """What was written, and each layer as it came and as it was quantized; no layers where no picture was drawn."""

    report: Int8Report
    before: tuple[LayerRow, ...] = ()
    after: tuple[LayerRow, ...] = ()


def write_int8(
    model: Any,
    path: Path,
    target_name: str,
    metadata: Metadata,
    settings: Settings,
    options: Int8Options,
    *,
    force: bool = False,
) -> Int8Result:
    """Writes a deployed model in INT8, if it is good enough, with its scores in the metadata.

    Args:
        force: replace a picture that is there.

    Raises:
        AccuracyError: if nothing was good enough; nothing is written then but the picture.
        InputError: if there are no images, or the target or scheme has no INT8.
    """
    target = get_int8_target(target_name)
    is_path = isinstance(options.calibration, str | Path)
    preprocessing = preprocessing_of(KerasRunner(model)) if is_path else metadata.preprocessing
    images = calibration_images(options.calibration, preprocessing, options.count, options.seed)
    levels = target.levels(options.processor)
    before = layer_rows(model, images, levels=levels) if options.picture else ()
    try:
        found = find_int8(
            model,
            target_name,
            images,
            metadata,
            settings=settings,
            evaluation=options.evaluation,
            max_drop=options.max_drop,
            scheme=options.scheme,
            processor=options.processor,
        )
    except AccuracyError:
        if options.picture:
            draw_layers(before, None, options.picture, title=f"{model.name}: not good enough in INT8", force=force)
        raise
    report = found.report
    told = {key: value for key, value in report.to_dict().items() if key not in ("attempts", "speedup")}
    if not options.picture:
        target.save(found.artifact, path, replace(metadata, precision="int8", quantization=told))
        return Int8Result(report)
    after = layer_rows(found.prepared, images, per_channel=report.scheme.per_channel, levels=levels)
    told["layers"] = [_told(*rows) for rows in zip(before, after, strict=True)]
    target.save(found.artifact, path, replace(metadata, precision="int8", quantization=told))
    title = f"{model.name} in INT8 ({target_name}): {report.scheme.describe()}. Top-1 agreement {report.agreement:.2%}"
    draw_layers(before, after, options.picture, title=title, force=force)
    return Int8Result(report, before, after)


def _told(before: LayerRow, after: LayerRow) -> dict[str, Any]:
    """What the artifact says of a layer: the noise of the logits with it alone in 8 bits, as it came and as it is."""
    return {
        "name": before.name,
        "spread": _finite(before.spread),
        "before": _finite(before.network_sqnr),
        "after": _finite(after.network_sqnr),
        "agreement_before": before.agreement,
        "agreement_after": after.agreement,
    }


def _finite(value: float) -> float | None:
    """For JSON, which has no infinity: where a channel has no weights, or nothing differs."""
    return round(float(value), 2) if math.isfinite(value) else None
