"""The steps of a run, from wherever it is to its end."""

import time
from collections.abc import Iterator
from typing import Any

import keras
from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.base.progress import working
from repvgg.base.run_folder import BEST, CHECKPOINTS, LAST, TENSORBOARD
from repvgg.checkpoints.scales import Scales
from repvgg.models.metadata import get_metadata
from repvgg.models.saving import save_model
from repvgg.pipeline import DataShard, steps_per_epoch, training_batches
from repvgg.runners.runner import Runner
from repvgg.training.callbacks import BestKeeper, RateLogger, StateKeeper
from repvgg.training.compiled import compile_for, output_names
from repvgg.training.feeding import read_by, validation_batches, with_outputs
from repvgg.training.inputs import Inputs
from repvgg.training.optimizers import make_schedule
from repvgg.training.processes import asked_to_stop, require_agreement
from repvgg.training.progress import ProgressBar, epoch_line
from repvgg.training.recipe import Recipe
from repvgg.training.request import Request
from repvgg.training.state import Progress, load_state, saved_steps
from repvgg.training.teacher import taught


def fit(
    network: Any,
    inputs: Inputs,
    request: Request,
    shard: DataShard,
    *,
    crops: Preprocessing,
    devices: int,
    teacher: Runner | None,
    scales: Scales | None,
    console: Console,
) -> Progress:
    """Trains until the last epoch; gives where the run is then."""
    recipe, folder = request.recipe, request.folder
    per_epoch = steps_per_epoch(inputs.training, recipe.batch_size)
    total = per_epoch * recipe.epochs
    trainer = compile_for(network, recipe, per_epoch, scales)
    writes = shard.index == 0
    names = output_names(network)

    # Where it is.
    state = load_state(folder / CHECKPOINTS, console.print) if request.begun is not None else None
    progress = state[1] if state is not None else Progress()
    require_agreement({"the step to go on from": progress.step})
    _tell_change_of_epochs(request, progress.step, per_epoch, console)
    keeper = _keeper(request, shard, progress, per_epoch, console)
    if state is not None:
        keeper.restore(trainer, state[0])
        console.print(f"Going on from step {progress.step} of {total}.")

    validation = validation_batches(
        inputs.validation,
        get_metadata(network).preprocessing or crops,
        names,
        batch_size=recipe.batch_size,
        shard=shard,
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
        if request.tensorboard and writes:
            logs = str(folder / TENSORBOARD)
            callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False, profile_batch=0))
        callbacks.append(ProgressBar(work))
        # A run that was stopped within an epoch first goes on to the end of that one.
        for first, last in _legs(progress.step, per_epoch, total):
            batches = training_batches(
                inputs.training,
                crops,
                recipe.augmentation,
                batch_size=recipe.batch_size,
                seed=request.seed,
                first_step=first,
                last_step=last,
                shard=shard,
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


def _keeper(request: Request, shard: DataShard, progress: Progress, per_epoch: int, console: Console) -> StateKeeper:
    """What saves the state, and has each epoch's figures written and printed."""
    folder, writes = request.folder, shard.index == 0
    clock = [time.perf_counter()]

    def on_epoch(row: dict[str, float]) -> None:
        clock.append(time.perf_counter())
        row["seconds"] = round(clock[-1] - clock[-2], 1)
        if writes:
            folder.write_history(progress.history)
        best = " (best)" if progress.best_epoch == int(row["epoch"]) else ""
        console.print(f"{epoch_line(row)}{best}")

    return StateKeeper(
        folder / CHECKPOINTS if writes else None,
        progress,
        steps_per_epoch=per_epoch,
        save_steps=request.save_steps,
        on_epoch=on_epoch,
        tell=lambda words: console.print(words, soft_wrap=True),
        asked_to_stop=asked_to_stop if shard.count > 1 else None,
    )


def require_steps_left(request: Request, per_epoch: int) -> None:
    """Makes sure that a run does not go on to an epoch that is long past.

    Raises:
        InputError: if it would.
    """
    done = max(saved_steps(request.folder / CHECKPOINTS), default=0) if request.begun is not None else 0
    if done > per_epoch * request.recipe.epochs:
        raise InputError(
            f"The run in '{request.folder.path}' is past {request.recipe.epochs} epochs: {done // per_epoch} are done. "
            "Give more --epochs, or none to go on as it was begun."
        )


def _tell_change_of_epochs(request: Request, step: int, per_epoch: int, console: Console) -> None:
    """A run that goes on to another end follows the schedule to that end from here."""
    if request.begun is None:
        return
    before = Recipe.from_dict(request.begun["settings"]["recipe"])
    now = request.recipe
    if before.epochs == now.epochs:
        return
    old, new = (float(make_schedule(recipe, per_epoch)(step)) for recipe in (before, now))
    console.print(
        f"epochs: {before.epochs} -> {now.epochs}. From here the learning rate follows the schedule of {now.epochs} "
        f"epochs: at step {step} it is {new:.3g}, and was {old:.3g}.",
        soft_wrap=True,
    )


def _legs(step: int, per_epoch: int, total: int) -> Iterator[tuple[int, int]]:
    within = step % per_epoch
    if within:
        end = step - within + per_epoch
        yield step, end
        step = end
    if step < total:
        yield step, total
