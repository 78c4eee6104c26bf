"""From networks and images to facts: loading, comparing, timing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from repvgg.base.errors import ConversionError, InputError
from repvgg.base.files import size_on_disk
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.benchmarking.figures import Figures, figures_of
from repvgg.benchmarking.machine import ForeignLoad, LoadMeter, this_machine
from repvgg.benchmarking.run import runtime_of
from repvgg.benchmarking.turns import take_turns, warm_up
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.core.architecture import Architecture
from repvgg.models.cost import count_cost
from repvgg.models.layers import all_layers
from repvgg.models.recover import recover
from repvgg.models.variants import VARIANTS
from repvgg.reporting.facts import Artifact, Facts, Quality, Training
from repvgg.reporting.survey import Survey, all_logits
from repvgg.runners import as_runner, load_runner
from repvgg.runners.classifier import preprocessing_of
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner, images_for
from repvgg.verification import VerificationReport, verify

ROUNDS = 5
"""Turns of each network when speed is measured."""


@dataclass(frozen=True)
class Contestant:
    """A network that the report is about; without `runner` where `problem` says why."""

    name: str
    runner: Runner | None
    path: Path | None = None
    problem: str | None = None

    @property
    def runtime(self) -> str:
        """What runs it."""
        if self.path is not None and self.runner is not None:
            return runtime_of(self.path, self.runner)
        return "Keras" if isinstance(self.runner, KerasRunner) else "-"


def load(files: Iterable[Path]) -> list[Contestant]:
    """All networks that can be loaded; of the others, why not."""
    found = []
    for path in files:
        try:
            found.append(Contestant(path.name, load_runner(path), path))
        except InputError as error:
            found.append(Contestant(path.name, None, path, str(error)))
    return found


def with_both_forms(contestants: Sequence[Contestant]) -> tuple[list[Contestant], VerificationReport | None]:
    """The networks, and what is known of how their two forms agree.

    A deploy form carries what was found when it was made. Where there is a training form only, it is converted here.
    """
    for one in contestants:
        told = one.runner.metadata.verification if one.runner is not None else None
        if told is not None:
            return list(contestants), VerificationReport.from_dict(told)
    trained = next(
        (one.runner for one in contestants if isinstance(one.runner, KerasRunner) and _trains(one.runner)), None
    )
    if trained is None:
        return list(contestants), None
    try:
        deployed = as_runner(reparameterize(trained.model))
    except ConversionError:
        # Of a run in 8 bits that was interrupted; its own end converts.
        return list(contestants), None
    report = verify(trained, deployed)
    return [*contestants, Contestant("deploy form, converted for this report", deployed)], report


def _trains(runner: KerasRunner) -> bool:
    return any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(runner.model))


def classifying(contestants: Sequence[Contestant], preprocessing: Preprocessing) -> list[Contestant]:
    """The same, but those that do not answer as classifiers of such images are left without their runner.

    Args:
        preprocessing: how the images are prepared.
    """
    found = []
    for one in contestants:
        checked = one
        if one.runner is not None:
            try:
                all_logits(one.runner, preprocessing.normalize(_grey(preprocessing, 1)))
            except InputError as error:
                checked = replace(one, runner=None, problem=str(error))
        found.append(checked)
    return found


@dataclass(frozen=True)
class Timing:
    """How fast networks are, by name, and what else the machine did meanwhile."""

    figures: Mapping[str, Figures]
    load: ForeignLoad


def timed(
    contestants: Sequence[Contestant], rounds: int = ROUNDS, on_turn: Callable[[int], None] = lambda _: None
) -> Timing:
    """How fast each is with one image after the other; they take turns."""
    runners = {one.name: one.runner for one in contestants if one.runner is not None}
    images = {
        name: images_for(runner, _grey(preprocessing_of(runner), runner.batch_size or 1))
        for name, runner in runners.items()
    }
    calls = [runner.repeated(images[name]) for name, runner in runners.items()]
    counts = [warm_up(call) for call in calls]
    meter = LoadMeter()
    turns = take_turns(calls, counts, rounds, on_turn=on_turn, on_round=meter.end_round)
    figures = figures_of(turns, [len(batch) for batch in images.values()])
    return Timing(dict(zip(runners, figures, strict=True)), meter.load())


def _grey(preprocessing: Preprocessing, count: int) -> np.ndarray:
    return np.full((count, preprocessing.crop, preprocessing.crop, preprocessing.channels), 128, np.uint8)


def assemble(
    name: str,
    contestants: Sequence[Contestant],
    *,
    training: Training | None = None,
    found: Survey | None = None,
    proof: VerificationReport | None = None,
    timing: Timing | None = None,
    gaps: Sequence[str] = (),
) -> Facts:
    """All that was found out, as one value."""
    reference = next((one.runner for one in contestants if one.runner is not None), None)
    architecture, classes = _architecture(reference)
    preprocessing = _preprocessing(reference)
    cost = None
    if architecture is not None:
        cost = count_cost(architecture, classes, (preprocessing.crop,) * 2, preprocessing.channels)
    machine = this_machine()
    own = training.versions if training is not None else {}
    return Facts(
        name=name,
        metadata=reference.metadata if reference is not None else Metadata(),
        side=preprocessing.crop,
        architecture=architecture,
        cost=cost,
        training=training,
        quality=_quality(found),
        proof=proof,
        artifacts=tuple(_artifact(one, found, timing) for one in contestants),
        machine=machine,
        load=timing.load if timing is not None else None,
        versions=own or {"repvgg": version("repvgg"), "python": machine.python, **machine.versions},
        gaps=tuple(gaps),
    )


def _artifact(one: Contestant, found: Survey | None, timing: Timing | None) -> Artifact:
    answers = found.answers.get(one.name) if found is not None else None
    return Artifact(
        name=one.name,
        runtime=one.runtime,
        size=size_on_disk(one.path) if one.path is not None and one.path.exists() else None,
        metadata=one.runner.metadata if one.runner is not None else None,
        top1=answers.top1 if answers is not None else None,
        agreement=answers.same / answers.tally.images if answers is not None else None,
        relative_error=answers.difference.relative if answers is not None else None,
        speed=timing.figures.get(one.name) if timing is not None else None,
        problem=one.problem,
    )


def _quality(found: Survey | None) -> Quality | None:
    if found is None:
        return None
    name, first = next(iter(found.answers.items()))
    return Quality(
        network=name,
        data=found.data,
        images=found.images,
        top1=first.top1,
        top5=first.top5,
        calibration_error=first.calibration_error,
        class_names=found.class_names,
        confusion=first.tally.confusion,
        mistakes=found.mistakes,
        broken=found.broken,
    )


def _architecture(runner: Runner | None) -> tuple[Architecture | None, int | None]:
    """What the network is built of, and its classes: from its layers, or from the name it carries."""
    if isinstance(runner, KerasRunner):
        try:
            recovered = recover(runner.model)
        except InputError:
            return None, None
        return recovered.architecture, recovered.num_classes
    variant = VARIANTS.get((runner.metadata.variant or "") if runner is not None else "")
    if variant is None or runner is None or runner.metadata.class_names is None:
        return None, None
    return variant.architecture, len(runner.metadata.class_names)


def _preprocessing(runner: Runner | None) -> Preprocessing:
    return preprocessing_of(runner) if runner is not None else Preprocessing()
