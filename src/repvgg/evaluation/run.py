"""Running a network over labelled images and reporting how good it is."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import FileError
from repvgg.data.folder import LabelledImages
from repvgg.data.reading import prepared_batches
from repvgg.evaluation.labels import labelled_for, require_as_many
from repvgg.evaluation.metrics import CALIBRATION_BINS, Tally, expected_calibration_error
from repvgg.evaluation.report import BrokenFile, CalibrationBin, ClassRow, EvaluationReport, Mistake
from repvgg.runners import as_runner
from repvgg.runners.classifier import class_logits, filled_up, preprocessing_of
from repvgg.runners.runner import Runner, images_for

MISTAKES = 24
"""Worst mistakes in a report."""

SPEED_RUNS = 3
SPEED_SECONDS = 2.0
"""Runs of a full batch to measure the network alone; fewer once they have taken so long."""


def evaluate(
    network: Any,
    images: LabelledImages | str | Path,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
    strict: bool = False,
    sorted_folders: bool = False,
) -> EvaluationReport:
    """Measures a classifier on labelled image files, in constant memory for any number of them.

    Files are read with Pillow and prepared as the network's metadata say, exactly as published accuracies are measured.
    The network's class names are found among the images' classes in any order. A network without class names needs as
    many classes as it has outputs, in the order of their names.

    Args:
        network: a `keras.Model`, a path to a file, a callable from images (N, H, W, C) to logits, or a `Runner`.
        images: labelled images, or a folder with one sub-folder a class; if there is `val/` in it, that one is meant.
        batch_size: images run at once; a network of fixed batches has its own.
        workers: threads that read files while the network runs; one for each core if None.
        advance: is called with the number of files that were dealt with since the last call.
        strict: raise at the first file that cannot be read, which is otherwise named in the report and left out.
        sorted_folders: the classes, sorted by name, stand in the order of the network's outputs, whatever its class
            names are; ImageNet's folders n01440764, ... do.

    Raises:
        InputError: if the classes do not match the network's outputs, or its outputs are not a classifier's.
        FileError: if no file can be read, or, with `strict`, at the first that cannot.

    Example:
        >>> report = evaluate("flowers.onnx", "flowers/val")
        >>> report.top1, report.expected_calibration_error
        (0.934, 0.021)
    """
    runner = as_runner(network)
    preprocessing = preprocessing_of(runner)
    labelled = labelled_for(runner.metadata.class_names, images, sorted_folders=sorted_folders)
    broken: list[BrokenFile] = []

    def tell(files: int) -> None:
        if advance is not None:
            advance(files)

    def on_broken(path: Path, error: FileError) -> None:
        broken.append(BrokenFile(path, str(error)))
        tell(1)

    tally: Tally | None = None
    first: np.ndarray | None = None
    start = time.perf_counter()
    batches = prepared_batches(
        labelled.paths,
        preprocessing,
        runner.batch_size or batch_size,
        workers=workers,
        on_broken=None if strict else on_broken,
    )
    for batch in batches:
        logits = class_logits(runner, batch.images)
        if tally is None or first is None:
            require_as_many(runner.name, logits.shape[1], labelled)
            tally, first = Tally(logits.shape[1], MISTAKES), batch.images
        tally.add(logits, labelled.labels[batch.indices], batch.indices)
        tell(len(batch.images))
    seconds = time.perf_counter() - start
    if tally is None or first is None:
        raise FileError(f"None of the {len(labelled)} files is a readable image. The first: {broken[0].reason}")
    return _report(runner, labelled, tally, tuple(broken), seconds, _speed(runner, first))


def _speed(runner: Runner, images: np.ndarray) -> float:
    """Images a second of the network alone; it has run before, so nothing is compiled in this time."""
    full = filled_up(runner, images_for(runner, images))
    seconds: list[float] = []
    while len(seconds) < SPEED_RUNS and sum(seconds) < SPEED_SECONDS:
        start = time.perf_counter()
        runner(full)
        seconds.append(time.perf_counter() - start)
    return len(full) / statistics.median(seconds)


def _report(
    runner: Runner,
    labelled: LabelledImages,
    tally: Tally,
    broken: tuple[BrokenFile, ...],
    seconds: float,
    network_images_per_second: float,
) -> EvaluationReport:
    names, count = labelled.class_names, tally.images
    right, true, answers = tally.confusion.diagonal(), tally.confusion.sum(axis=1), tally.confusion.sum(axis=0)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    return EvaluationReport(
        network=runner.name,
        images=count,
        top1=int(right.sum()) / count,
        top5=tally.in_top / count,
        negative_log_likelihood=tally.surprise / count,
        expected_calibration_error=expected_calibration_error(
            tally.bin_counts, tally.bin_confidences, tally.bin_correct
        ),
        classes=tuple(
            ClassRow(name, int(true[label]), _share(right[label], true[label]), _share(right[label], answers[label]))
            for label, name in enumerate(names)
        ),
        confusion=tally.confusion,
        calibration=tuple(
            CalibrationBin(
                float(edges[index]),
                float(edges[index + 1]),
                int(tally.bin_counts[index]),
                _share(tally.bin_confidences[index], tally.bin_counts[index]),
                _share(tally.bin_correct[index], tally.bin_counts[index]),
            )
            for index in range(CALIBRATION_BINS)
        ),
        network_images_per_second=network_images_per_second,
        images_per_second=count / seconds,
        broken=broken,
        mistakes=tuple(
            Mistake(labelled.paths[index], names[label], names[guess], probability)
            for index, label, guess, probability in tally.worst()
        ),
    )


def _share(part: float, whole: int) -> float | None:
    return float(part / whole) if whole else None
