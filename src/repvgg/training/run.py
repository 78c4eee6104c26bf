"""From a folder of images to a trained network in both forms, proved, in a folder that tells how it came about."""

import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.base.progress import working
from repvgg.base.run_folder import BEST, CHECKPOINTS, LAST, TENSORBOARD, RunFolder
from repvgg.base.words import counted
from repvgg.checkpoints.zoo import create_model
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.saving import load_model, save_model
from repvgg.pipeline import Share, steps_per_epoch, training_batches
from repvgg.runners.runner import Runner
from repvgg.training.callbacks import BestKeeper, RateLogger, StateKeeper
from repvgg.training.compiled import compile_for, output_names
from repvgg.training.distribution import all_devices, placed, this_share
from repvgg.training.feeding import read_by, validation_batches, with_outputs
from repvgg.training.finish import Outcome, finish
from repvgg.training.inputs import Inputs, find_inputs
from repvgg.training.processes import asked_to_stop, require_agreement
from repvgg.training.progress import ProgressBar, devices_line, epoch_line, scan_bar, tell_inputs
from repvgg.training.quantized import QuantizedStart, calibration_batch, finish_quantized, is_quantized
from repvgg.training.recipe import Recipe, get_recipe
from repvgg.training.speed import prepare_machine
from repvgg.training.state import Progress, load_state
from repvgg.training.teacher import check_teacher, taught, teacher_for
from repvgg.training.versions import versions

SAVE_STEPS = 200
"""Steps between checkpoints within an epoch."""

EVALUATION_SHARE = 224 / 256
"""Crop over resized side in evaluation: the paper's 224 of 256 pixels."""


@dataclass(frozen=True)
class TrainingResult:
    """What came of a run.

    Attributes:
        model: the best network, in training form.
        deployed: the same as a plain stack of convolutions; None in a process that writes nothing.
        history: a row of figures for each epoch.
        folder: where everything lies.
        outcome: accuracy and agreement of both forms on the validation images; None in a process that writes nothing.
    """

    model: Any
    deployed: Any
    history: list[dict[str, float]]
    folder: Path
    outcome: Outcome | None


def train(
    data: str | Path,
    model: Any = "RepVGG-A0",
    *,
    recipe: str | Recipe = "quick",
    output: str | Path | None = None,
    weights: str | Path | None = None,
    teacher: Any = None,
    seed: int = 0,
    holdout: float = 0.2,
    dtype: Any = None,
    save_steps: int = SAVE_STEPS,
    tensorboard: bool = True,
    report: bool = True,
    strict: bool = False,
    workers: int | None = None,
    resume: bool = False,
    force: bool = False,
    out: Console | None = None,
    **changes: Any,
) -> TrainingResult:
    """Trains a classifier on a folder of images, converts the best model, and verifies it.

    The run's folder holds the settings, the list of images, a row of figures for each epoch (CSV and TensorBoard), the
    best and the last model, the deploy form, a picture, and checkpoints from which `resume` goes on: after a kill at
    any moment, from the last step saved, and on one CPU bit for bit as if nothing had happened.

    Args:
        data: class folders, `train/` and `val/` with class folders in them, or what `repvgg shard` wrote.
        model: a variant's name, a classifier of one's own with an output for each class, or a `QuantizedStart`, which
            is its own teacher if there is no other.
        recipe: a key of `RECIPES`, or a `Recipe`.
        output: the run's folder; `runs/<model>-<data>` if None.
        weights: what to begin with: "imagenet" or a file, as for `repvgg.create_model`.
        teacher: a trained network, or any `Runner`, whose answers are learnt; `distill` of the recipe says how much.
        seed: of weights, order and augmentation.
        holdout: share of the images to measure with, where `data` does not say.
        dtype: Keras dtype policy, such as "mixed_bfloat16".
        save_steps: steps between checkpoints within an epoch; there is one at the end of each epoch as well.
        tensorboard: write logs for TensorBoard.
        report: write a page about the run and its network at the end, as `repvgg.report` does.
        strict: fail at broken images instead of leaving them out.
        workers: threads that read images; TensorFlow's own choice, and one a core before the first epoch, if None.
        resume: go on with the run in `output`, if there is one.
        force: begin anew in a folder that has a run in it.
        out: where to print; nowhere if None.
        changes: single values of the recipe or its augmentation, such as `epochs=20` or `size=96`.

    Raises:
        InputError: for settings, images or a folder that do not fit.
        OutputExistsError: if the folder is taken and neither `resume` nor `force` is set.
        TrainingDivergedError: if the loss stops being a number; the last good state is kept.
        InterruptedTrainingError: after Ctrl-C or SIGTERM, with the state saved.
        CheckpointError: if a checkpoint cannot be written or read.
        VerificationError: if the deploy form differs from the trained one.

    Example:
        >>> result = repvgg.train("flowers", "RepVGG-A0", epochs=40)
        >>> result.outcome.top1, result.deployed
    """
    console = out or Console(quiet=True)
    chosen = (get_recipe(recipe) if isinstance(recipe, str) else recipe).changed(**changes)
    data = Path(data)
    label = model if isinstance(model, str) else model.name
    folder = RunFolder(Path(output) if output is not None else Path("runs") / f"{label}-{data.resolve().name}")
    if save_steps < 1:
        raise InputError(f"`save_steps` must be at least 1. Received: {save_steps}.")
    start = model if isinstance(model, QuantizedStart) else None
    if start is not None:
        model = start.network
        teacher = model if teacher is None and chosen.distill else teacher
    tutor = teacher_for(teacher, chosen)
    crops, views = _preprocessing(model, chosen)
    share = this_share()
    writes = share.index == 0
    settings = _settings(data, model, chosen, weights, tutor, seed, holdout, dtype)
    if start is not None:
        settings["quantization"] = start.describe()
    resumed = folder.begin(settings, resume=resume, force=force) if writes else resume and folder.started
    if resume and not resumed:
        console.print(f"Nothing to go on with in '{folder.path}'; a new run begins.", soft_wrap=True)
    with scan_bar(console) as scanning:
        inputs = find_inputs(
            data,
            folder if writes else None,
            holdout=holdout,
            seed=seed,
            strict=strict,
            workers=workers,
            resumed=resumed,
            scanning=scanning,
        )
    require_agreement({"the settings": settings, "the images": inputs.fingerprint()})
    tell_inputs(console, inputs)
    if writes and not resumed:
        folder.write_settings(settings, {"command": shlex.join(["repvgg", *sys.argv[1:]]), "versions": versions()})

    prepare_machine()
    keras.utils.set_random_seed(seed)
    with all_devices() as devices:
        if tutor is not None:
            check_teacher(tutor, inputs.training.class_names, crops)
        if start is not None:
            console.print("Equalizing and fitting the network for 8 bits ...")
            with working(console, "fitting"):
                model = start.prepare(calibration_batch(inputs.training, chosen, crops, seed))
        network = _network(model, inputs, crops, views, weights, dtype)
        set_metadata(
            network,
            class_names=inputs.training.class_names,
            preprocessing=views,
            source=f"repvgg train: {data.resolve().name}, {counted(chosen.epochs, 'epoch')}, seed {seed}",
        )
        steps = counted(steps_per_epoch(inputs.training, chosen.batch_size), "step")
        console.print(
            f"{label} at {crops.crop} px on {keras.backend.backend()}, {devices_line(devices, share)}: "
            f"{counted(chosen.epochs, 'epoch')} of {steps}, batch {chosen.batch_size}, "
            f"learning rate up to {chosen.peak_rate:.3g}. Everything goes to {folder.path}/",
            soft_wrap=True,
        )
        progress = _fit(
            network,
            inputs,
            chosen,
            folder,
            share,
            crops=crops,
            devices=devices,
            seed=seed,
            save_steps=save_steps,
            tensorboard=tensorboard,
            resumed=resumed,
            teacher=tutor,
            console=console,
        )
    if not writes:
        return TrainingResult(network, None, progress.history, folder.path, None)
    console.print(
        f"Converting the best network, of epoch {progress.best_epoch or 0}, and comparing both forms on "
        f"{counted(len(inputs.validation), 'validation image')} ...",
        soft_wrap=True,
    )
    # On one device again, wherever it was trained.
    best = load_model(folder / BEST)
    if is_quantized(best):
        deployed, outcome = finish_quantized(
            best, inputs.validation, folder, progress, console, teacher=tutor, report=report
        )
    else:
        deployed, outcome = finish(best, inputs.validation, folder, progress, console, report=report)
    return TrainingResult(best, deployed, progress.history, folder.path, outcome)


def _fit(
    network: Any,
    inputs: Inputs,
    recipe: Recipe,
    folder: RunFolder,
    share: Share,
    *,
    crops: Preprocessing,
    devices: int,
    seed: int,
    save_steps: int,
    tensorboard: bool,
    resumed: bool,
    teacher: Runner | None,
    console: Console,
) -> Progress:
    """Trains from wherever the run is to its end; gives where it is then."""
    per_epoch = steps_per_epoch(inputs.training, recipe.batch_size)
    total = per_epoch * recipe.epochs
    trainer = compile_for(network, recipe, per_epoch)
    writes = share.index == 0

    state = load_state(folder / CHECKPOINTS, console.print) if resumed else None
    progress = state[1] if state is not None else Progress()
    clock = [time.perf_counter()]

    def on_epoch(row: dict[str, float]) -> None:
        clock.append(time.perf_counter())
        row["seconds"] = round(clock[-1] - clock[-2], 1)
        if writes:
            folder.write_history(progress.history)
        best = " (best)" if progress.best_epoch == int(row["epoch"]) else ""
        console.print(f"{epoch_line(row)}{best}")

    keeper = StateKeeper(
        folder / CHECKPOINTS if writes else None,
        progress,
        steps_per_epoch=per_epoch,
        save_steps=save_steps,
        on_epoch=on_epoch,
        asked_to_stop=asked_to_stop if share.count > 1 else None,
        tell=lambda words: console.print(words, soft_wrap=True),
    )
    require_agreement({"the step to go on from": progress.step})
    if state is not None:
        keeper.restore(trainer, state[0])
        console.print(f"Going on from step {progress.step} of {total}.")
    names = output_names(network)
    validation = validation_batches(
        inputs.validation,
        get_metadata(network).preprocessing or crops,
        names,
        batch_size=recipe.batch_size,
        share=share,
        devices=devices,
    )

    def save_best() -> None:
        if writes:
            save_model(network, folder / BEST, force=True)

    with (
        working(console, "training", total, done=progress.step, unit="steps") as work,
        keeper.stopping_on_signals(),
    ):
        callbacks: list[Any] = [RateLogger(), BestKeeper(progress, per_epoch, save_best)]
        if recipe.ema is not None:
            callbacks.append(keras.callbacks.SwapEMAWeights())
        callbacks.append(keeper)
        if tensorboard and writes:
            callbacks.append(_tensorboard(folder))
        callbacks.append(ProgressBar(work))
        # A run that was stopped within an epoch first goes on to the end of that one.
        for first, last in _legs(progress.step, per_epoch, total):
            batches = training_batches(
                inputs.training,
                crops,
                recipe.augmentation,
                batch_size=recipe.batch_size,
                seed=seed,
                first_step=first,
                last_step=last,
                share=share,
            )
            if teacher is not None:
                batches = taught(batches, teacher, recipe.distill)
            trainer.fit(
                with_outputs(read_by(batches, inputs.workers), names),
                initial_epoch=first // per_epoch,
                epochs=-(-last // per_epoch),
                steps_per_epoch=min(per_epoch, last - first),
                validation_data=read_by(validation, inputs.workers),
                callbacks=callbacks,
                verbose=0,
                shuffle=False,
            )
    if recipe.ema is not None:
        trainer.optimizer.finish_average(trainer.trainable_variables)
    if writes:
        save_model(network, folder / LAST, force=True)
    return progress


def _legs(step: int, per_epoch: int, total: int) -> Iterator[tuple[int, int]]:
    within = step % per_epoch
    if within:
        end = step - within + per_epoch
        yield step, end
        step = end
    if step < total:
        yield step, total


def _settings(
    data: Path,
    model: Any,
    recipe: Recipe,
    weights: Any,
    teacher: Runner | None,
    seed: int,
    holdout: float,
    dtype: Any,
) -> dict[str, Any]:
    """What decides the numbers of a run: a run that goes on must have the same."""
    return {
        "data": str(data),
        "model": model if isinstance(model, str) else f"a model of one's own, {model.count_params():,} parameters",
        "weights": str(weights) if weights is not None else None,
        "teacher": teacher.name if teacher is not None else None,
        "seed": seed,
        "holdout": holdout,
        "dtype": str(keras.dtype_policies.get(dtype or keras.config.dtype_policy()).name),
        "recipe": recipe.to_dict(),
    }


def _preprocessing(model: Any, recipe: Recipe) -> tuple[Preprocessing, Preprocessing]:
    """Of training images, which are cropped at random, and of those the network is measured with."""
    carried = None if isinstance(model, str) else get_metadata(model).preprocessing
    channels = 3 if isinstance(model, str) else model.inputs[0].shape[-1]
    if carried is not None and carried.channels != channels:
        raise InputError(
            f"'{model.name}' takes images of {channels} channels, and carries preprocessing for {carried.channels}. "
            "Set it with repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(...))."
        )
    if recipe.size is None:
        if carried is None:
            raise InputError("This recipe has no image size of its own, and the network carries none. Give `size`.")
        return carried, carried
    usual = carried or Preprocessing.for_channels(channels)
    colours = {"mean": usual.mean, "std": usual.std}
    side = recipe.test_size or recipe.size
    # A larger test size is the whole image, as the official repository tests RepVGGplus.
    resize = side if recipe.test_size is not None else round(side / EVALUATION_SHARE)
    crops = Preprocessing(crop=recipe.size, resize=recipe.size, **colours)
    return crops, Preprocessing(crop=side, resize=resize, **colours)


def _network(model: Any, inputs: Inputs, crops: Preprocessing, views: Preprocessing, weights: Any, dtype: Any) -> Any:
    classes = len(inputs.training.class_names)
    if isinstance(model, str):
        # A size that is the same in training and in evaluation is fixed, which exports and kernels like.
        side = crops.crop if crops.crop == views.crop else None
        return create_model(model, classes, (side, side, crops.channels), weights=weights, dtype=dtype)
    for name, value in (("weights", weights), ("dtype", dtype)):
        if value is not None:
            raise InputError(f"`{name}` is for a network that is made by its name; '{model.name}' has its own.")
    outputs = model.output["main"] if output_names(model) else model.output
    if outputs.shape[-1] != classes:
        raise InputError(f"'{model.name}' has {outputs.shape[-1]} outputs, and the images are in {classes} classes.")
    return placed(model)


def _tensorboard(folder: RunFolder) -> Any:
    return keras.callbacks.TensorBoard(str(folder / TENSORBOARD), write_graph=False, profile_batch=0)
