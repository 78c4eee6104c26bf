"""How far two sets of outputs are apart."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from repvgg.base.errors import InputError


@dataclass(frozen=True)
class Difference:
    """The largest difference of two outputs, and the largest reference value to measure it by."""

    absolute: float
    scale: float

    @property
    def relative(self) -> float:
        """The largest difference over the largest reference value; 0 only if nothing differs at all."""
        if self.absolute == 0:
            return 0.0
        return self.absolute / self.scale if self.scale > 0 else np.inf

    def joined(self, other: "Difference") -> "Difference":
        """Of both sets of images together."""
        return Difference(max(self.absolute, other.absolute), max(self.scale, other.scale))


def difference(reference: np.ndarray, candidate: np.ndarray) -> Difference:
    """Compares two arrays of one shape; a value that is not finite, on either side, is an infinite difference.

    Raises:
        InputError: if the shapes differ.
    """
    if reference.shape != candidate.shape:
        raise InputError(
            f"The outputs have different shapes, {reference.shape} and {candidate.shape}, so these are not two forms "
            "of one network."
        )
    if reference.size == 0:
        return Difference(0.0, 0.0)
    first, second = reference.astype(np.float64), candidate.astype(np.float64)
    scale = float(np.abs(first).max())
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return Difference(np.inf, 1.0)
    return Difference(float(np.abs(first - second).max()), scale)


def differences(reference: Mapping[str, np.ndarray], candidate: Mapping[str, np.ndarray]) -> dict[str, Difference]:
    """The same for each of several named outputs.

    Raises:
        InputError: if the names differ.
    """
    if set(reference) != set(candidate):
        raise InputError(
            f"The networks have different outputs: {', '.join(reference)} and {', '.join(candidate)}. "
            "Only two forms of one network can be compared."
        )
    return {name: difference(values, candidate[name]) for name, values in reference.items()}


def worst(found: Iterable[Difference]) -> Difference:
    """The one with the largest relative difference."""
    return max(found, key=lambda one: one.relative)


def top1_matches(reference: np.ndarray, candidate: np.ndarray) -> int:
    """How many images get the same class; both (N, classes)."""
    return int(np.sum(reference.argmax(axis=1) == candidate.argmax(axis=1)))
