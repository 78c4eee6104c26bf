"""From seconds to figures: medians with their spread, and ratios of contestants that took turns."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it: half of all values lie between these."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of one value or more."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(statistics.median(values), low, high)

    @property
    def relative(self) -> float:
        """Half the distance of the quartiles, as a share of the median."""
        return (self.high - self.low) / 2 / self.median

    def scaled(self, factor: float) -> "Spread":
        """The same in another unit."""
        return Spread(self.median * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Figures:
    """How fast one contestant was.

    Attributes:
        seconds: of one call.
        times_first: how many times as fast as the first contestant, compared round by round: both met the same machine.
        calls: how many were counted.
    """

    seconds: Spread
    times_first: Spread
    calls: int
    batch: int

    @property
    def images_per_second(self) -> float:
        """Of the median call."""
        return self.batch / self.seconds.median

    @property
    def milliseconds_per_image(self) -> Spread:
        """Of the median call, and of those at the quartiles."""
        return self.seconds.scaled(1e3 / self.batch)


def figures_of(turns: Sequence[Sequence[Sequence[float]]], batches: Sequence[int]) -> list[Figures]:
    """The figures of each contestant.

    Args:
        turns: of each contestant, of each round, the seconds of its calls.
        batches: images in a call of each contestant.
    """
    medians = [[statistics.median(calls) for calls in rounds] for rounds in turns]
    found = []
    for rounds, own, batch in zip(turns, medians, batches, strict=True):
        calls = [seconds for turn in rounds for seconds in turn]
        ratios = [(first / batches[0]) / (seconds / batch) for first, seconds in zip(medians[0], own, strict=True)]
        found.append(Figures(Spread.of(calls), Spread.of(ratios), len(calls), batch))
    return found
