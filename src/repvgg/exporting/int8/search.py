"""From a float network to an INT8 artifact that is good enough, or an account of what was tried."""

from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import AccuracyError, InputError
from repvgg.base.files import scratch_folder
from repvgg.base.metadata import Metadata
from repvgg.base.processor import PORTABLE
from repvgg.exporting.int8.report import Attempt, Int8Report
from repvgg.exporting.int8.scores import Evaluation, Judge
from repvgg.quantization.prepare import equalized, prepare
from repvgg.quantization.schemes import FALLBACK, FALLBACK_STEPS, FORMER_NAMES, SCHEMES, Scheme, get_scheme
from repvgg.quantization.sensitivity import LayerRow, layer_rows, most_sensitive
from repvgg.runners import load_runner
from repvgg.runners.runner import Runner
from repvgg.targets import TARGETS, Settings
from repvgg.targets.int8 import Int8Target, get_int8_target, require_faithful

MAX_DROP = 1.0
"""Points of accuracy, or of top-1 agreement where there are no labels."""


@dataclass(frozen=True)
class Found:
    """An artifact in memory, the Keras model it was made of, and how it was found."""

    artifact: Any
    prepared: Any
    report: Int8Report


def find_int8(
    model: Any,
    target_name: str,
    images: np.ndarray,
    metadata: Metadata,
    *,
    settings: Settings | None = None,
    evaluation: Evaluation = None,
    max_drop: float = MAX_DROP,
    scheme: str | None = None,
    processor: str = PORTABLE,
) -> Found:
    """Quantizes a deployed model so that it loses no more than `max_drop` points.

    Without a scheme the default is tried, and if that is not enough the fallback schedule: from the naive scheme on,
    one step after the other, each on top of those that helped, until one is enough.

    Args:
        images: for calibration, (N, H, W, C) in float32, prepared.
        evaluation: labelled images, on which accuracy may drop by `max_drop` points. Without them up to `max_drop` % of
            the calibration images may get another class than before.
        scheme: a name of `SCHEMES`, which is tried alone, or "fallback", which begins with the naive one.
        processor: a name of `PROCESSORS`: which the artifact has to be right on.

    Raises:
        AccuracyError: if nothing was good enough; its message and its `report` say what was tried.
        InputError: if the target has no INT8, or lacks what the scheme asks for, or this machine cannot evaluate what
            is made for another kind of processor.
        UnknownNameError: if there is no such scheme or kind of processor.
    """
    target = get_int8_target(target_name)
    if not max_drop >= 0:
        raise InputError(f"`max_drop` (={max_drop}) is a number of points, 0 or more.")
    scheme = FORMER_NAMES.get(scheme, scheme) if scheme else None
    alone = scheme not in (None, FALLBACK)
    if evaluation is not None:
        require_faithful(target_name, processor)
    first = {} if scheme == FALLBACK else {scheme or "default": get_scheme(scheme or "default")}
    for name, one in first.items():
        lacking = target.lacks(one)
        if lacking:
            raise InputError(f"Scheme '{name}' cannot be used for '{target_name}': {lacking}.")
    settings = replace(settings or Settings(), precision="float32")
    with scratch_folder() as folder:
        trial = _Trial(model, target_name, target, images, metadata, settings, evaluation, max_drop, processor, folder)
        if any(trial.is_enough(trial.attempt(name, one)) for name, one in first.items()):
            return trial.found()
        if not alone and _fall_back(trial):
            return trial.found()
        raise AccuracyError(_explained(trial.report()), trial.report())


def _fall_back(trial: "_Trial") -> bool:
    """Tries one step of the schedule after the other; whether one was enough."""
    best = trial.attempt("naive", SCHEMES["naive"])
    if trial.is_enough(best):
        return True
    for name, change in FALLBACK_STEPS.items():
        attempt = trial.attempt(name, change(best.scheme), beside=best)
        if trial.is_enough(attempt):
            return True
        if attempt.is_better_than(best):
            best = attempt
    return False


class _Trial:
    """One network for one target: keeps what was prepared and tried, so that nothing is done twice."""

    def __init__(
        self,
        model: Any,
        name: str,
        target: Int8Target,
        images: np.ndarray,
        metadata: Metadata,
        settings: Settings,
        evaluation: Evaluation,
        max_drop: float,
        processor: str,
        folder: Path,
    ) -> None:
        self._model, self._name, self._target, self._images = model, name, target, images
        self._metadata, self._settings, self._max_drop, self._folder = metadata, settings, max_drop, folder
        self._processor, self._levels = target.made_for(processor), target.levels(processor)
        # What the network is in the same runtime in float32: what INT8 is measured by.
        path = folder / f"float32{TARGETS[name].suffix}"
        import_module(TARGETS[name].module).write(model, path, metadata, settings)
        self._float_size = self._size(path)
        self._judge = Judge(self._load(path), evaluation, images)
        self._attempts: list[Attempt] = []
        self._prepared: dict[tuple[Any, ...], Any] = {}
        self._rows: dict[tuple[Any, ...], tuple[LayerRow, ...]] = {}
        self._latest: tuple[Any, Any, Runner, int] | None = None

    def attempt(self, name: str, scheme: Scheme, beside: Attempt | None = None) -> Attempt:
        """Tries a scheme, on the grids of the processor in question, or looks up what came of it."""
        scheme = replace(scheme, weight_levels=self._levels)
        lacking = self._target.lacks(scheme)
        known = next((one for one in self._attempts if one.scheme == scheme and one.score is not None), None)
        if lacking is not None:
            result = Attempt(name, scheme, lacking=lacking)
        elif known is not None:
            result = replace(known, name=name)
        else:
            score = self._judge.score(self._made(scheme))
            lost = score.agreement if score.accuracy is None else 1 + score.accuracy - (self._float_accuracy or 0)
            result = Attempt(name, scheme, score, drop=100 * (1 - lost))
        if beside is not None and beside.score is not None and result.score is not None:
            result = replace(result, gain=100 * (result.score.agreement - beside.score.agreement))
        self._attempts.append(result)
        return result

    def is_enough(self, attempt: Attempt) -> bool:
        return attempt.drop is not None and attempt.drop <= self._max_drop

    def found(self) -> Found:
        """What the latest attempt made."""
        if self._latest is None:
            raise ValueError("Nothing was made yet.")
        artifact, prepared, runner, size = self._latest
        report = replace(self.report(), size=size, speedup=self._judge.speedup(runner))
        return Found(artifact, prepared, report)

    def report(self) -> Int8Report:
        return Int8Report(
            target=self._name,
            network=self._model.name,
            images=self._judge.images,
            labelled=self._judge.labelled,
            max_drop=self._max_drop,
            processor=self._processor,
            float_accuracy=self._float_accuracy,
            attempts=tuple(self._attempts),
            float_size=self._float_size,
        )

    @property
    def _float_accuracy(self) -> float | None:
        return self._judge.reference.accuracy

    def _made(self, scheme: Scheme) -> Runner:
        layers = self._layers_in_float(scheme)
        prepared = self._prepare(scheme, layers)
        artifact = self._target.quantize(prepared, self._images, scheme, layers, self._settings)
        path = self._folder / f"int8-{len(self._attempts)}{TARGETS[self._name].suffix}"
        self._target.save(artifact, path, self._metadata)
        runner = self._load(path)
        self._latest = artifact, prepared, runner, self._size(path)
        return runner

    def _layers_in_float(self, scheme: Scheme) -> tuple[str, ...]:
        if not scheme.float_layers:
            return ()
        key = (scheme.equalize, scheme.per_channel)
        if key not in self._rows:
            model = equalized(self._model, self._images, scheme)
            self._rows[key] = layer_rows(
                model, self._images, per_channel=scheme.per_channel, levels=scheme.weight_levels
            )
        return most_sensitive(self._rows[key], scheme.float_layers)

    def _prepare(self, scheme: Scheme, layers: tuple[str, ...]) -> Any:
        rounds = scheme.rounding != "nearest"
        per_channel = scheme.per_channel and (rounds or scheme.equalize == "noise")
        key = (scheme.equalize, scheme.rounding, per_channel, layers if rounds else ())
        if key not in self._prepared:
            self._prepared[key] = prepare(self._model, self._images, scheme, layers)
        return self._prepared[key]

    def _load(self, path: Path) -> Runner:
        runner = load_runner(path)
        runner.name = path.stem
        return runner

    def _size(self, path: Path) -> int:
        parts = (path, *(path.with_suffix(ending) for ending in TARGETS[self._name].beside))
        return sum(part.stat().st_size for part in parts)


def _explained(report: Int8Report) -> str:
    lost = report.best.drop or 0.0
    return (
        f"No INT8 artifact was written for '{report.target}': {report.criterion()}, and the best that was tried "
        f"('{report.best.name}') loses {lost:.2f}.\n{report.table()}\n"
        "Allow more (--max-drop), calibrate on images that are more like those the network will see (--calibration), "
        "or train with quantization in mind (docs/quantization-aware.md)."
    )
