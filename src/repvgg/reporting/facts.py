"""Everything that is said of a network, as data: the page and the model card are two ways to read it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repvgg.base.metadata import Metadata
from repvgg.benchmarking.figures import Figures
from repvgg.benchmarking.machine import ForeignLoad, Machine
from repvgg.core.architecture import Architecture
from repvgg.models.cost import Cost
from repvgg.verification import VerificationReport


class Accuracy(NamedTuple):
    """Shares of right answers on so many labelled images."""

    images: int
    top1: float
    top5: float


class Mistake(NamedTuple):
    """The image as the network got it, (H, W, C) in [0, 1]; true class, predicted class, probability of that, file."""

    image: np.ndarray
    true: str
    predicted: str
    probability: float
    file: str | None = None


@dataclass(frozen=True)
class Training:
    """A run, as its folder tells of it.

    Attributes:
        settings: what decides the numbers: images, model, seed, recipe.
        command: how it was started.
        versions: of what took part.
        history: a row of figures for each epoch that was finished.
    """

    settings: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    history: tuple[Mapping[str, float], ...]

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Its values by name."""
        recipe: Mapping[str, Any] = self.settings.get("recipe", {})
        return recipe

    @property
    def epochs(self) -> int:
        """How many were planned."""
        return int(self.recipe.get("epochs", len(self.history)))

    @property
    def data(self) -> str:
        """What the folder of images is called."""
        return Path(str(self.settings.get("data", ""))).name

    @property
    def interrupted(self) -> bool:
        """Whether it has not come to its end."""
        return len(self.history) < self.epochs

    @property
    def best(self) -> Mapping[str, float] | None:
        """The row of the epoch whose network was kept."""
        return max(self.history, key=lambda row: row["val_accuracy"], default=None)

    @property
    def minutes(self) -> float:
        """All epochs together."""
        return sum(row.get("seconds", 0.0) for row in self.history) / 60


@dataclass(frozen=True)
class Quality:
    """What the reference network answers on labelled images.

    Attributes:
        network: its name among the artifacts.
        data: which images, in the words of whoever named them.
        top1, top5, calibration_error: shares, 0 to 1.
        confusion: (classes, classes), images by true class (row) and predicted class (column).
        mistakes: the most confident ones, worst first.
        broken: files that were left out as unreadable.
    """

    network: str
    data: str
    images: int
    top1: float
    top5: float
    calibration_error: float
    class_names: tuple[str, ...]
    confusion: np.ndarray = field(repr=False)
    mistakes: tuple[Mistake, ...] = field(repr=False, default=())
    broken: int = 0


@dataclass(frozen=True)
class Artifact:
    """One file of the network.

    Attributes:
        runtime: what runs it.
        size: in bytes; None for what is in memory only.
        top1: share of right answers on the labelled images.
        agreement: share of these images that get the same class as from the reference.
        relative_error: the largest difference of the logits from the reference's, over the largest logit.
        speed: of one image after the other.
        problem: why it could not be run.
    """

    name: str
    runtime: str
    size: int | None = None
    metadata: Metadata | None = None
    top1: float | None = None
    agreement: float | None = None
    relative_error: float | None = None
    speed: Figures | None = None
    problem: str | None = None

    @property
    def layers(self) -> tuple[Mapping[str, Any], ...]:
        """What INT8 costs each layer, where the file says so: rows of `repvgg export --report`."""
        told = (self.metadata.quantization if self.metadata is not None else None) or {}
        return tuple(told.get("layers", ()))


@dataclass(frozen=True)
class Facts:
    """A network, and all that was found out about it.

    Attributes:
        name: of the run or the file.
        reference: the artifact that the others are compared with.
        architecture, cost: None for a network that is put together otherwise; `side` is the image size counted for.
        proof: both forms compared, block by block.
        machine, load: where speeds were measured, and what else went on there.
        gaps: what is missing and how to get it, a sentence each.
    """

    name: str
    metadata: Metadata
    side: int
    architecture: Architecture | None
    cost: Cost | None
    training: Training | None
    quality: Quality | None
    proof: VerificationReport | None
    artifacts: tuple[Artifact, ...]
    machine: Machine
    load: ForeignLoad | None
    versions: Mapping[str, str]
    gaps: tuple[str, ...] = ()
    written: date = field(default_factory=date.today)

    @property
    def title(self) -> str:
        """The variant's name if there is one."""
        return self.metadata.variant or self.name

    @property
    def accuracy(self) -> Accuracy | None:
        """As measured for these facts, or as the network says that it was when its training ended."""
        if self.quality is not None:
            return Accuracy(self.quality.images, self.quality.top1, self.quality.top5)
        for one in self.artifacts:
            told = ((one.metadata.verification if one.metadata is not None else None) or {}).get("validation")
            if told is not None:
                return Accuracy(int(told["images"]), float(told["deployed_top1"]), float(told["top5"]))
        return None

    @property
    def reference(self) -> str | None:
        """The first artifact that could be run."""
        return next((one.name for one in self.artifacts if one.problem is None), None)
