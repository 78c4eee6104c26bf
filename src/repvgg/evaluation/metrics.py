"""Figures of a classifier, added up batch by batch: memory depends on the number of classes and not of images."""

import heapq

import numpy as np

from repvgg.runners.classifier import log_softmax

CALIBRATION_BINS = 15
"""As many, and as wide, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""

TOP = 5


class Tally:
    """What has been seen so far of a classifier of `classes` classes.

    Attributes:
        confusion: (classes, classes), images by true class (row) and predicted class (column).
        in_top: images whose true class is among the `TOP` most likely ones.
        surprise: sum of -log(probability of the true class), in nats.
        bin_counts, bin_confidences, bin_correct: images, sum of their confidences and right answers by confidence, for
            `CALIBRATION_BINS` bins of equal width; each includes its upper edge. Confidence is the largest probability.
    """

    def __init__(self, classes: int, keep: int) -> None:
        self.confusion = np.zeros((classes, classes), np.int64)
        self.in_top = 0
        self.surprise = 0.0
        self.bin_counts = np.zeros(CALIBRATION_BINS, np.int64)
        self.bin_confidences = np.zeros(CALIBRATION_BINS)
        self.bin_correct = np.zeros(CALIBRATION_BINS, np.int64)
        self._keep = keep
        self._worst: list[tuple[float, int, int, int]] = []

    def add(self, logits: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> None:
        """Counts a batch: logits (n, classes), labels (n,), and the images' numbers (n,), which mistakes keep."""
        rows = np.arange(len(labels))
        logarithms = log_softmax(logits)
        own = logarithms[rows, labels]
        guesses = logits.argmax(axis=1)
        confidences = np.exp(logarithms[rows, guesses])
        right = guesses == labels

        np.add.at(self.confusion, (labels, guesses), 1)
        self.in_top += int(np.sum(_ranks(logits, labels) < TOP))
        self.surprise -= float(own.sum())
        edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
        bins = np.clip(np.digitize(confidences, edges, right=True) - 1, 0, CALIBRATION_BINS - 1)
        np.add.at(self.bin_counts, bins, 1)
        np.add.at(self.bin_confidences, bins, confidences)
        np.add.at(self.bin_correct, bins, right)
        for row in np.flatnonzero(~right):
            # Of equal mistakes the earlier image is kept, whatever the batches are.
            entry = (float(confidences[row]), -int(indices[row]), int(labels[row]), int(guesses[row]))
            (heapq.heappush if len(self._worst) < self._keep else heapq.heappushpop)(self._worst, entry)

    @property
    def images(self) -> int:
        """How many were counted."""
        return int(self.confusion.sum())

    def worst(self) -> list[tuple[int, int, int, float]]:
        """The most confident mistakes, worst first: number of the image, true class, predicted class, probability."""
        return [
            (-index, label, guess, confidence) for confidence, index, label, guess in sorted(self._worst, reverse=True)
        ]


def _ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes come before the true one (n,); of equal logits the class with the smaller number comes first."""
    own = logits[np.arange(len(labels)), labels][:, np.newaxis]
    earlier = np.arange(logits.shape[1]) < labels[:, np.newaxis]
    ranks: np.ndarray = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    return ranks


def expected_calibration_error(counts: np.ndarray, confidences: np.ndarray, correct: np.ndarray) -> float:
    """Mean distance of accuracy and confidence over bins, each weighted with its images.

    Sum over bins of n_b / n * |accuracy_b - confidence_b|, which is (1 / n) * sum |correct_b - confidences_b|.

    Args:
        counts: images of each bin.
        confidences: the sum of their confidences.
        correct: how many of them are right.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equations 2 and 3.
    """
    return float(np.abs(correct - confidences).sum() / counts.sum())


def most_confused(confusion: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The most frequent mistakes: true class, predicted class, images; `confusion` is as a `Tally` has it."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [(int(place) // len(wrong), int(place) % len(wrong)) for place in largest]
    return [(row, column, int(wrong[row, column])) for row, column in pairs if wrong[row, column]]
