"""How good a network is after quantization, beside the network it was."""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.data.folder import LabelledImages
from repvgg.data.reading import prepared_batches
from repvgg.evaluation.labels import labelled_for, require_as_many
from repvgg.quantization.steps import batches
from repvgg.runners.classifier import class_logits, filled_up, preprocessing_of
from repvgg.runners.runner import Runner, images_for
from repvgg.verification import difference
from repvgg.verification.compare import top1_matches

BATCH = 32

SPEED_IMAGES = 8
SPEED_ROUNDS = 7
WARM_UP = 2

Evaluation = str | Path | LabelledImages | tuple[np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Score:
    """An artifact's answers beside those of the float network in the same runtime.

    Attributes:
        accuracy: share of right answers, 0 to 1; None without labels.
        agreement: share of images that get the same class from both.
        relative_error: the largest difference of logits over the largest logit.
    """

    accuracy: float | None
    agreement: float
    relative_error: float


class Judge:
    """Runs artifacts over the same images and compares them with the first one that it was shown.

    Args:
        reference: the float network, run by the runtime in question.
        evaluation: a folder of class folders, labelled images, or arrays: images (N, H, W, C), prepared, and labels.
        images: prepared images to compare on where there is no `evaluation`.

    Raises:
        InputError: if the classes do not match the network's outputs, or it is not a classifier.
        FileError: if an image file cannot be read.
    """

    def __init__(self, reference: Runner, evaluation: Evaluation, images: np.ndarray) -> None:
        self._labels: np.ndarray | None = None
        self._files: LabelledImages | None = None
        self._images = images
        self._reference = reference
        if isinstance(evaluation, tuple):
            self._images, self._labels = _checked_arrays(*evaluation)
        elif evaluation is not None:
            self._files = labelled_for(reference.metadata.class_names, evaluation)
            self._labels = self._files.labels
        self._expected = self._logits(reference)
        if self._files is not None:
            require_as_many(reference.name, self._expected.shape[1], self._files)
        self.reference = self._score(self._expected)

    @property
    def images(self) -> int:
        """How many images artifacts are compared on."""
        return len(self._expected)

    @property
    def labelled(self) -> bool:
        """Whether there are labels, so that accuracy can be told."""
        return self._labels is not None

    def score(self, runner: Runner) -> Score:
        """Runs an artifact over all images."""
        return self._score(self._logits(runner))

    def speedup(self, runner: Runner) -> float:
        """How many times faster than the reference a small batch is run; both take turns, and medians are compared."""
        images = next(self._batches(runner.batch_size or SPEED_IMAGES))
        times: dict[str, list[float]] = {"reference": [], "candidate": []}
        for turn in range(WARM_UP + SPEED_ROUNDS):
            for name, one in (("reference", self._reference), ("candidate", runner)):
                batch = filled_up(one, images_for(one, images))
                start = time.perf_counter()
                one(batch)
                if turn >= WARM_UP:
                    times[name].append(time.perf_counter() - start)
        return statistics.median(times["reference"]) / statistics.median(times["candidate"])

    def _score(self, logits: np.ndarray) -> Score:
        return Score(
            accuracy=None if self._labels is None else float(np.mean(logits.argmax(axis=1) == self._labels)),
            agreement=top1_matches(self._expected, logits) / len(logits),
            relative_error=difference(self._expected, logits).relative,
        )

    def _logits(self, runner: Runner) -> np.ndarray:
        return np.concatenate([class_logits(runner, batch) for batch in self._batches(runner.batch_size or BATCH)])

    def _batches(self, size: int) -> Iterator[np.ndarray]:
        if self._files is None:
            return batches(self._images, size)
        preprocessing = preprocessing_of(self._reference)
        return (batch.images for batch in prepared_batches(self._files.paths, preprocessing, size))


def _checked_arrays(images: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    images, labels = np.asarray(images, np.float32), np.asarray(labels)
    if images.ndim != 4 or labels.shape != images.shape[:1] or len(labels) == 0:
        raise InputError(
            "To evaluate on arrays, pass images (N, H, W, C) and labels (N,), at least one. Received the shapes "
            f"{images.shape} and {labels.shape}."
        )
    return images, labels
