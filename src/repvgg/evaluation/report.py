"""What an evaluation found."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.words import counted


@dataclass(frozen=True)
class ClassRow:
    """One class.

    Attributes:
        images: how many are of this class.
        recall: share of them that are recognized, 0 to 1; None if there are none.
        precision: share of right answers among all answers of this class; None if it is never the answer.
    """

    name: str
    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True)
class CalibrationBin:
    """Images whose largest probability is above `lower` and at most `upper`.

    Attributes:
        confidence: mean of that probability; None if there are no images.
        accuracy: share of right answers, 0 to 1; None if there are no images.
    """

    lower: float
    upper: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for something else, with the probability of the wrong answer."""

    path: Path
    true: str
    predicted: str
    probability: float


@dataclass(frozen=True)
class BrokenFile:
    """A file that could not be read as an image, and was left out."""

    path: Path
    reason: str


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """How good a network is on labelled images.

    Attributes:
        network: its name.
        images: how many were looked at; broken files are not among them.
        top1, top5: share, 0 to 1, of images whose class is the most likely one, or among the five most likely.
        negative_log_likelihood: mean of -log(probability of the true class), in nats.
        expected_calibration_error: mean distance of accuracy and confidence, 0 to 1, over 15 bins of equal width, each
            weighted with its images (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
        classes: a row a class, in the order of the network's outputs.
        confusion: (classes, classes), images by true class (row) and predicted class (column).
        calibration: the bins of the calibration error, which a reliability diagram shows.
        network_images_per_second: of the network alone, a full batch at a time, with nothing else going on.
        images_per_second: of the whole evaluation, with reading and preparing the files.
        broken: files that were left out.
        mistakes: the most confident ones, worst first.
    """

    network: str
    images: int
    top1: float
    top5: float
    negative_log_likelihood: float
    expected_calibration_error: float
    classes: tuple[ClassRow, ...]
    confusion: np.ndarray = field(repr=False)
    calibration: tuple[CalibrationBin, ...] = field(repr=False)
    network_images_per_second: float
    images_per_second: float
    broken: tuple[BrokenFile, ...] = ()
    mistakes: tuple[Mistake, ...] = ()

    def summary(self) -> str:
        """One sentence for a log."""
        # Of five classes or fewer, every answer is among the first five.
        top5 = f", top-5 {self.top5:.2%}" if len(self.classes) > 5 else ""
        left_out = f", {len(self.broken)} left out as unreadable" if self.broken else ""
        return (
            f"{self.network}: top-1 {self.top1:.2%}{top5} of {counted(self.images, 'image')} in {len(self.classes)} "
            f"classes{left_out}."
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "confusion": self.confusion.tolist(),
            "broken": [{**asdict(file), "path": str(file.path)} for file in self.broken],
            "mistakes": [{**asdict(mistake), "path": str(mistake.path)} for mistake in self.mistakes],
        }
