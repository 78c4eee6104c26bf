"""What a search for INT8 found, and all that it tried."""

from dataclasses import dataclass
from typing import Any

from repvgg.base.words import counted
from repvgg.exporting.int8.scores import Score
from repvgg.quantization.schemes import Scheme


@dataclass(frozen=True)
class Attempt:
    """One scheme that was tried.

    Attributes:
        name: of the scheme, or of the step of the fallback schedule that was added to what had helped so far.
        score: what came out; None if the target cannot do it, and `lacking` says why.
        gain: points of top-1 agreement more than the best one before it; None where there was none to begin from.
        drop: points lost by the criterion of the search.
    """

    name: str
    scheme: Scheme
    score: Score | None = None
    drop: float | None = None
    gain: float | None = None
    lacking: str | None = None

    def is_better_than(self, other: "Attempt") -> bool:
        """More images keep their class; if as many do, the logits are closer."""
        if self.score is None or other.score is None:
            return self.score is not None
        mine, others = ((one.agreement, -one.relative_error) for one in (self.score, other.score))
        return mine > others

    def row(self) -> tuple[str, str, str, str, str]:
        """Name, accuracy, top-1 agreement, gain and scheme as texts for a table."""
        if self.score is None:
            return self.name, "-", "-", "-", f"not tried: {self.lacking}"
        accuracy = "-" if self.score.accuracy is None else f"{self.score.accuracy:.2%}"
        gain = "" if self.gain is None else f"{self.gain:+.2f}"
        return self.name, accuracy, f"{self.score.agreement:.2%}", gain, self.scheme.describe()


ATTEMPT_HEADINGS = ("tried", "accuracy", "top-1 agreement", "gain", "scheme")

_KEYS = ("tried", "accuracy", "agreement", "gain", "scheme")
"""The headings in JSON."""


@dataclass(frozen=True)
class Int8Report:
    """An INT8 artifact beside the float network, both run by the artifact's own runtime.

    Attributes:
        target: its format.
        network: the name of the Keras model.
        images: how many both were compared on.
        labelled: whether these have labels; if not, they are the calibration images, and top-1 agreement is what
            counts.
        max_drop: points of accuracy, or of top-1 agreement, that it might lose.
        processor: `portable` or `vnni`, what it was made for.
        float_accuracy: of the float network, 0 to 1; None without labels.
        float_size, size: in bytes; 0 for an artifact that was not kept.
        speedup: how many times faster it ran a small batch; None for an artifact that was not kept.
        attempts: everything that was tried, in order. The last one is the artifact, if one was kept.
    """

    target: str
    network: str
    images: int
    labelled: bool
    max_drop: float
    processor: str
    float_accuracy: float | None
    attempts: tuple[Attempt, ...]
    float_size: int
    size: int = 0
    speedup: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the last attempt lost no more than was allowed."""
        last = self.attempts[-1]
        return last.drop is not None and last.drop <= self.max_drop

    @property
    def best(self) -> Attempt:
        """The attempt that lost least."""
        return min((one for one in self.attempts if one.score), key=lambda one: one.drop or 0.0)

    @property
    def chosen(self) -> Attempt:
        """The artifact, if one was kept; else the best attempt."""
        return self.attempts[-1] if self.passed else self.best

    @property
    def scheme(self) -> Scheme:
        """How it was made."""
        return self.chosen.scheme

    @property
    def accuracy(self) -> float | None:
        """Of the artifact, 0 to 1; None without labels."""
        return self._score.accuracy

    @property
    def agreement(self) -> float:
        """Share of images that get the same class from both."""
        return self._score.agreement

    @property
    def relative_error(self) -> float:
        """The largest difference of logits over the largest logit."""
        return self._score.relative_error

    @property
    def _score(self) -> Score:
        score = self.chosen.score
        if score is None:
            raise ValueError("No scheme could be tried.")
        return score

    def criterion(self) -> str:
        """What counts, as a clause."""
        if self.labelled:
            return f"accuracy on {counted(self.images, 'labelled image')} may drop by {counted(self.max_drop, 'point')}"
        return (
            f"no labelled images were given, so up to {self.max_drop:g} % of the {self.images} calibration images may "
            "get another class than before"
        )

    def summary(self) -> str:
        """One sentence."""
        found = f"top-1 agreement {self.agreement:.2%}"
        if self.labelled and self.float_accuracy is not None and self.accuracy is not None:
            found = f"accuracy {self.float_accuracy:.2%} in float32 and {self.accuracy:.2%} in INT8, {found}"
        verdict = "is" if self.passed else "is not"
        return f"INT8 for {self.target} {verdict} good enough ({self.criterion()}): {found}."

    def table(self) -> str:
        """The attempts as plain text, a line each."""
        rows = [ATTEMPT_HEADINGS, *(attempt.row() for attempt in self.attempts)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(ATTEMPT_HEADINGS))]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "target": self.target,
            "network": self.network,
            "images": self.images,
            "criterion": "accuracy" if self.labelled else "agreement",
            "max_drop": self.max_drop,
            "passed": self.passed,
            "scheme": self.scheme.describe(),
            "processor": self.processor,
            "accuracy_float32": self.float_accuracy,
            "accuracy_int8": self.accuracy,
            "agreement": self.agreement,
            "relative_error": self.relative_error,
            "size_float32": self.float_size,
            "size_int8": self.size,
            "speedup": self.speedup,
            "attempts": [dict(zip(_KEYS, attempt.row(), strict=True)) for attempt in self.attempts],
        }
