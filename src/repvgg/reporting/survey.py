"""Several networks on the same labelled images, in one pass over them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from repvgg.base.metadata import Preprocessing
from repvgg.evaluation.metrics import Tally, expected_calibration_error
from repvgg.reporting.facts import Mistake
from repvgg.runners.classifier import class_logits
from repvgg.runners.runner import Runner
from repvgg.verification import Difference, difference
from repvgg.verification.compare import top1_matches

SHOWN_MISTAKES = 12


@dataclass
class Answers:
    """What one network answered.

    Attributes:
        tally: beside the labels.
        same: images that got the same class as from the first network.
        difference: of the logits from the first network's.
    """

    tally: Tally
    same: int = 0
    difference: Difference = field(default_factory=lambda: Difference(0.0, 0.0))

    @property
    def top1(self) -> float:
        """Share of right answers."""
        return float(np.trace(self.tally.confusion)) / self.tally.images

    @property
    def top5(self) -> float:
        """Share of images whose class is among the five most likely ones."""
        return self.tally.in_top / self.tally.images

    @property
    def calibration_error(self) -> float:
        """Mean distance of accuracy and confidence."""
        return expected_calibration_error(self.tally.bin_counts, self.tally.bin_confidences, self.tally.bin_correct)


@dataclass(frozen=True)
class Survey:
    """All answers, and the worst mistakes of the first network.

    Attributes:
        data: which images these are, for people.
        answers: by network.
        broken: files that were left out as unreadable.
    """

    data: str
    images: int
    class_names: tuple[str, ...]
    answers: Mapping[str, Answers]
    mistakes: tuple[Mistake, ...]
    broken: int = 0


def survey(
    runners: Mapping[str, Runner],
    batches: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]],
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    *,
    data: str = "",
    files: Sequence[str] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Survey:
    """Runs all on every image, and compares their answers with the labels and with the first one's.

    Args:
        runners: by name.
        batches: prepared images (n, H, W, C), labels (n,), and the images' numbers (n,).
        preprocessing: how they were prepared.
        files: names of all images, for the mistakes.
        advance: is called with the number of images of each batch, once it has gone through all networks.

    Raises:
        InputError: if a network cannot take these images, or is not a classifier of these classes.
    """
    kept = dict.fromkeys(runners, 0)
    first_name = next(iter(kept))
    kept[first_name] = SHOWN_MISTAKES
    answers = {name: Answers(Tally(len(class_names), count)) for name, count in kept.items()}
    first = answers[first_name].tally
    pictures: dict[int, np.ndarray] = {}
    seen = 0
    for images, labels, indices in batches:
        expected: np.ndarray | None = None
        for name, found in answers.items():
            logits = all_logits(runners[name], images)
            expected = logits if expected is None else expected
            found.tally.add(logits, labels, indices)
            found.same += top1_matches(expected, logits)
            found.difference = difference(expected, logits).joined(found.difference)
        # Only the images of the worst mistakes so far are held.
        pictures.update(zip(indices.tolist(), images, strict=True))
        pictures = {index: pictures[index] for index, *_ in first.worst()}
        seen += len(images)
        if advance is not None:
            advance(len(images))
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    mistakes = tuple(
        Mistake(
            (pictures[index] * std + mean).clip(0, 1),
            class_names[true],
            class_names[predicted],
            probability,
            files[index] if files is not None else None,
        )
        for index, true, predicted, probability in first.worst()
    )
    return Survey(data, seen, tuple(class_names), answers, mistakes)


def all_logits(runner: Runner, images: np.ndarray) -> np.ndarray:
    """Logits of a batch of any size, also from a network of fixed batches."""
    step = runner.batch_size or len(images)
    return np.concatenate([class_logits(runner, images[start : start + step]) for start in range(0, len(images), step)])


def numbered(batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of images and labels, with the images' numbers from 0 on."""
    seen = 0
    for images, labels in batches:
        yield images, labels, np.arange(seen, seen + len(images))
        seen += len(images)
