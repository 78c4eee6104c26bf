"""How far two sets of outputs are apart."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from repvgg.errors import InputError


@dataclass(frozen=True)
class Difference:
    """`relative`: the largest difference over the largest reference value of the same image; `absolute`: as it is."""

    relative: float
    absolute: float

    def worse(self, other: "Difference") -> "Difference":
        """The larger of each."""
        return Difference(max(self.relative, other.relative), max(self.absolute, other.absolute))


NO_DIFFERENCE = Difference(0.0, 0.0)


def difference(reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """Compares two outputs image by image, so that an image of small values hides behind no other.

    A value that is not finite, on either side, counts as an infinite difference.

    Args:
        reference, candidate: arrays of one shape, the first axis counting images.

    Raises:
        InputError: if the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise InputError(
            f"The outputs have different shapes, {reference.shape} and {candidate.shape}, so these are not two forms "
            "of one network."
        )
    if reference.size == 0:
        return NO_DIFFERENCE
    first = reference.astype(np.float64).reshape(len(reference), -1)
    second = candidate.astype(np.float64).reshape(len(candidate), -1)
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return Difference(np.inf, np.inf)
    distance = np.abs(first - second).max(axis=1)
    scale = np.abs(first).max(axis=1)
    relative = np.divide(distance, scale, out=np.where(distance > 0, np.inf, 0.0), where=scale > 0)
    return Difference(float(relative.max()), float(distance.max()))


def difference_of_all(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> Difference:
    """The worst difference over named outputs.

    Raises:
        InputError: if the names differ.
    """
    if list(reference) != list(candidate):
        raise InputError(
            f"The networks have different outputs: {', '.join(reference)} and {', '.join(candidate)}. "
            "Only two forms of one network can be compared."
        )
    worst = NO_DIFFERENCE
    for name, values in reference.items():
        worst = worst.worse(difference(values, candidate[name]))
    return worst


def top1_matches(reference: np.ndarray, candidate: np.ndarray) -> int:
    """How many images get the same class; both (N, classes)."""
    return int(np.sum(reference.argmax(axis=1) == candidate.argmax(axis=1)))
