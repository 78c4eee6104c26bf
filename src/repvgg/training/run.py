"""From a folder of images to a trained network in both forms, proved, in a folder that tells how it came about."""

import shlex
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.base.progress import working
from repvgg.base.run_folder import BEST, OPTIMIZER_SCALES
from repvgg.base.words import counted
from repvgg.checkpoints.scales import Scales, save_scales
from repvgg.checkpoints.zoo import create_model
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.saving import load_model
from repvgg.pipeline import steps_per_epoch
from repvgg.training.compiled import output_names
from repvgg.training.distribution import all_devices, placed, this_shard
from repvgg.training.finish import Outcome, finish
from repvgg.training.fitting import fit, require_steps_left
from repvgg.training.inputs import Inputs, find_inputs
from repvgg.training.processes import require_agreement
from repvgg.training.progress import devices_line, scan_bar, tell_inputs
from repvgg.training.quantized import (
    QuantizedStart,
    calibration_batch,
    finish_quantized,
    is_quantized,
    quantized_start,
)
from repvgg.training.recipe import Recipe
from repvgg.training.request import NO_SIZE, Request, checked_request
from repvgg.training.searching import (
    find_scales,
    given_scales,
    keep_found_scales,
    prepare_scales,
    require_one_process,
)
from repvgg.training.speed import prepare_machine
from repvgg.training.teacher import check_teacher, open_teacher
from repvgg.training.versions import versions

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
    data: str | Path | None = None,
    model: Any = None,
    *,
    recipe: str | Recipe | None = None,
    output: str | Path | None = None,
    weights: str | Path | None = None,
    teacher: Any = None,
    scales: str | Path | None = None,
    search_epochs: int | None = None,
    seed: int | None = None,
    holdout: float | None = None,
    dtype: Any = None,
    save_steps: int | None = None,
    tensorboard: bool | None = None,
    report: bool | None = None,
    strict: bool | None = None,
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
        data: class folders, `train/` and `val/` with class folders in them, a CSV file, or what
            `repvgg shard` wrote; with `resume` what the run in `output` has if None.
        model: a variant's name ("RepVGG-A0" if None), a classifier of one's own with an output for each class, or a
            `QuantizedStart`, which is its own teacher if there is no other.
        recipe: a key of `RECIPES` ("quick" if None), or a `Recipe`.
        output: the run's folder; `runs/<model>-<data>` if None.
        weights: what to begin with: "imagenet" or a file, as for `repvgg.create_model`.
        teacher: a trained network, a file of one, or any `Runner`, whose answers are learnt; `distill` of the recipe
            says how much.
        scales: for blocks that are trained as sums of branches, as RepOpt-VGG's are: a file that
            `repvgg.load_scales` reads. Kernels that were not trained yet begin as sums of branches too.
        search_epochs: find the scales first, by training the search network of a `model` by name for so long.
        seed: of weights, order and augmentation; 0 if None.
        holdout: share of the images to measure with, where `data` does not say; 0.2 if None.
        dtype: Keras dtype policy, such as "mixed_bfloat16".
        save_steps: steps between checkpoints within an epoch, 200 if None; the end of each epoch has one as well.
        tensorboard: write logs for TensorBoard; yes if None.
        report: write a page about the run and its network at the end, as `repvgg.report` does.
        strict: fail at broken images instead of leaving them out.
        workers: threads that read images; TensorFlow's own choice, and one a core before the first epoch, if None.
        resume: go on with the run in `output`, if there is one; what is not given here is as it was begun. With more
            `epochs` than before it goes on longer.
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
    # Before anything else has a name here: what was given, by the names of the arguments.
    given = {name: value for name, value in locals().items() if name not in ("resume", "force", "out", "changes")}
    request = checked_request(
        {**given, **changes}, resume=resume, force=force, quantizing=isinstance(model, QuantizedStart)
    )
    return run(request, out or Console(quiet=True))


def run(request: Request, console: Console) -> TrainingResult:
    """Trains as `train` does, what was checked before."""
    request, start = _opened(request)
    tutor = open_teacher(request.teacher)
    network, seed = request.model, request.seed
    crops, views = _preprocessing(network, request.recipe)

    # The images.
    with scan_bar(console) as scanning:
        inputs = find_inputs(request, scanning)
    request = request.fitted_to(len(inputs.training))
    recipe, folder = request.recipe, request.folder
    for note in request.notes:
        console.print(note, soft_wrap=True, markup=False)
    tell_inputs(console, inputs)

    # Is it the run that it should be? All processes have to say so before one of them writes.
    scales = given_scales(request)
    settings = _settings(request, start, tutor.name if tutor is not None else None, scales)
    request.require_same(settings)
    if request.begun is not None:
        inputs.require_same(folder)
    require_agreement({"the settings": settings, "the images": inputs.fingerprint()})
    shard = this_shard()
    writes = shard.index == 0

    if request.search_epochs is not None:
        require_one_process(shard)
        _begin(request, settings, inputs, None)
        scales = find_scales(request, lambda search: run(search, console), console)

    prepare_machine()
    keras.utils.set_random_seed(seed)
    with all_devices() as devices:
        # The network.
        if tutor is not None:
            check_teacher(tutor, inputs.training.class_names, crops)
        if start is not None:
            console.print("Equalizing and fitting the network for 8 bits ...")
            with working(console, "fitting"):
                network = start.prepare(calibration_batch(inputs.training, recipe, crops, seed))
        network = _network(network, inputs, crops, views, request.weights, request.dtype)
        made_for = prepare_scales(network, request, scales, console)
        set_metadata(
            network,
            optimizer=made_for,
            class_names=inputs.training.class_names,
            preprocessing=views,
            source=f"repvgg train: {request.data.resolve().name}, {counted(recipe.epochs, 'epoch')}, seed {seed}",
        )
        per_epoch = steps_per_epoch(inputs.training, recipe.batch_size)

        require_steps_left(request, per_epoch)

        # Nothing can be wrong any more; the folder comes last, but where it has a search in it.
        if writes and request.search_epochs is None:
            _begin(request, settings, inputs, scales)
        console.print(
            f"{request.label} at {crops.crop} px on {keras.backend.backend()}, {devices_line(devices, shard)}: "
            f"{counted(recipe.epochs, 'epoch')} of {counted(per_epoch, 'step')}, batch {recipe.batch_size}, "
            f"learning rate up to {recipe.peak_rate:.3g}. Everything goes to {folder.path}/",
            soft_wrap=True,
        )
        progress = fit(
            network,
            inputs,
            request,
            shard,
            crops=crops,
            devices=devices,
            teacher=tutor,
            scales=scales,
            console=console,
        )
    if not writes:
        return TrainingResult(network, None, progress.history, folder.path, None)

    keep_found_scales(network, request, console)

    # Both forms of the best one, on one device again, wherever it was trained.
    console.print(
        f"Converting the best network, of epoch {progress.best_epoch or 0}, and comparing both forms on "
        f"{counted(len(inputs.validation), 'validation image')} ...",
        soft_wrap=True,
    )
    best = load_model(folder / BEST)
    if is_quantized(best):
        deployed, outcome = finish_quantized(
            best, inputs.validation, folder, progress, console, teacher=tutor, report=request.report
        )
    else:
        deployed, outcome = finish(best, inputs.validation, folder, progress, console, report=request.report)
    return TrainingResult(best, deployed, progress.history, folder.path, outcome)


def _opened(request: Request) -> tuple[Request, QuantizedStart | None]:
    """With networks where names of files stood; and what a run in 8-bit numbers begins with, where it is one."""
    start = request.model if isinstance(request.model, QuantizedStart) else None
    if request.qat is not None:
        processor = {"processor": request.processor} if request.processor is not None else {}
        start = quantized_start(Path(request.qat), per_channel=request.per_channel, **processor)
    if start is None:
        return request, None
    own = start.network if request.teacher is None and request.recipe.distill else request.teacher
    return replace(request, model=start.network, teacher=own), start


def _settings(
    request: Request, start: QuantizedStart | None, teacher: str | None, scales: Scales | None
) -> dict[str, Any]:
    """What decides the numbers of a run: a run that goes on must have the same."""
    model = request.model
    quantization = {"quantization": start.describe()} if start is not None else {}
    multiplied = {"scales": scales.digest()} if scales is not None and request.search_epochs is None else {}
    return {
        **request.settings(),
        **multiplied,
        "model": model if isinstance(model, str) else f"a model of one's own, {model.count_params():,} parameters",
        "teacher": teacher,
        "dtype": str(keras.dtype_policies.get(request.dtype or keras.config.dtype_policy()).name),
        **quantization,
    }


def _begin(request: Request, settings: dict[str, Any], inputs: Inputs, scales: Scales | None) -> None:
    """Writes what the run begins with, or with which other settings it goes on."""
    command = shlex.join(["repvgg", *sys.argv[1:]])
    if request.begun is None:
        about = {"command": command, "versions": versions()}
        told = {"settings": settings, "options": request.options(), "about": about}
        request.folder.begin(inputs.state, told)
        if scales is not None:
            save_scales(scales, request.folder / OPTIMIZER_SCALES, force=True)
    elif request.begun["settings"] != settings:
        about = request.begun["about"]
        about = {**about, "went_on_with": [*about.get("went_on_with", []), command]}
        request.folder.write_settings({**request.begun, "settings": settings, "about": about})


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
            raise InputError(NO_SIZE)
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
    outputs = model.output["main"] if output_names(model) else model.output
    if outputs.shape[-1] != classes:
        raise InputError(f"'{model.name}' has {outputs.shape[-1]} outputs, and the images are in {classes} classes.")
    return placed(model)
