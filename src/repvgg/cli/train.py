"""`repvgg train`."""

from collections.abc import Mapping
from contextlib import nullcontext
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from repvgg.base.errors import InputError
from repvgg.base.processor import get_processor
from repvgg.base.startup import keep_memory
from repvgg.cli.config import was_given
from repvgg.cli.device import DEVICE_HELP, WORKERS_HELP, check_device
from repvgg.cli.networks import require_model, require_network
from repvgg.cli.terminal import FORCE_HELP

_RECIPE, _IMAGES, _RUN, _HOSTS = "The recipe's values", "Training images", "The run", "Several hosts"


class ComputeDtype(StrEnum):
    """What the network computes in."""

    float32 = "float32"
    bfloat16 = "mixed_bfloat16"
    float16 = "mixed_float16"


def command(
    context: typer.Context,
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A folder with one sub-folder a class, or train/ and val/; a .csv file; shards; a run to --resume."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="A network's name; `repvgg list` has them.")] = "RepVGG-A0",
    recipe: Annotated[
        str | None,
        typer.Option(
            help="quick (the default), finetune, paper, paper-heavy, plus, repopt, repopt-search, or qat (with --qat)."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side; the recipe's if not given.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the images; the recipe's if not given.")] = None,
    weights: Annotated[str | None, typer.Option(help="What to begin with: imagenet, or a file.")] = None,
    scales: Annotated[
        Path | None,
        typer.Option(
            help="For RepOpt-VGG: what its optimizer multiplies gradients by: a file, or the run that searched it."
        ),
    ] = None,
    search_epochs: Annotated[
        int | None, typer.Option(min=1, help="For RepOpt-VGG: search the scales first, so long, on the same images.")
    ] = None,
    qat: Annotated[
        Path | None, typer.Option(help="A trained .keras file or checkpoint to train on in 8-bit numbers.")
    ] = None,
    per_channel: Annotated[
        bool, typer.Option("--per-channel", help="With --qat: a scale for each channel of a kernel, not one for all.")
    ] = False,
    processor: Annotated[
        str | None,
        typer.Option(
            help="With --qat: portable (the default; right on all processors), vnni (8-bit weights), or this."
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(help="A trained network, any file of one, to learn from with --distill; with --qat its own."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The run's folder; runs/MODEL-DATA if not given.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in that folder, if any, as it was begun; with more --epochs, longer.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, order and augmentation.", rich_help_panel=_RUN)] = 0,
    precision: Annotated[
        ComputeDtype | None, typer.Option(help="float32 if not given; mixed: in 16 bits.", rich_help_panel=_RUN)
    ] = None,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP, rich_help_panel=_RUN)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help=WORKERS_HELP, rich_help_panel=_RUN)] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="The same bits on a GPU too; slower.", rich_help_panel=_RUN),
    ] = False,
    save_steps: Annotated[
        int, typer.Option(min=1, help="Steps between checkpoints within an epoch.", rich_help_panel=_RUN)
    ] = 200,
    tensorboard: Annotated[bool, typer.Option(help="Write logs for TensorBoard.", rich_help_panel=_RUN)] = True,
    report: Annotated[bool, typer.Option(help="Write report.html at the end.", rich_help_panel=_RUN)] = True,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Fail at broken images; else they are left out.", rich_help_panel=_IMAGES),
    ] = False,
    holdout: Annotated[
        float, typer.Option(help="Share to measure with where DATA has no val/.", rich_help_panel=_IMAGES)
    ] = 0.2,
    crop_scale: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Share of the area a random crop covers, from and to.", rich_help_panel=_IMAGES),
    ] = None,
    crop_ratio: Annotated[
        tuple[float, float] | None,
        typer.Option(help="Width over height of a random crop, from and to.", rich_help_panel=_IMAGES),
    ] = None,
    flip: Annotated[bool | None, typer.Option(help="Mirror half of the images.", rich_help_panel=_IMAGES)] = None,
    auto_augment: Annotated[
        bool | None, typer.Option(help="AutoAugment's ImageNet policy.", rich_help_panel=_IMAGES)
    ] = None,
    rand_augment: Annotated[
        tuple[int, float] | None,
        typer.Option(help="RandAugment: operations and magnitude (0 to 10); 0 0 for none.", rich_help_panel=_IMAGES),
    ] = None,
    random_erasing: Annotated[
        float | None, typer.Option(help="Probability of random erasing.", rich_help_panel=_IMAGES)
    ] = None,
    mixup: Annotated[float | None, typer.Option(help="Mixup's alpha; 0 for none.", rich_help_panel=_IMAGES)] = None,
    cutmix: Annotated[float | None, typer.Option(help="CutMix's alpha; 0 for none.", rich_help_panel=_IMAGES)] = None,
    test_size: Annotated[
        int | None, typer.Option(help="Pixels a side in evaluation, if others.", rich_help_panel=_IMAGES)
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images a step, over all devices.", rich_help_panel=_RECIPE)] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Its peak at batch 256; scales with the batch.", rich_help_panel=_RECIPE)
    ] = None,
    warmup_epochs: Annotated[float | None, typer.Option(help="Of linear warm-up.", rich_help_panel=_RECIPE)] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, or adamw, which needs a rate of its own.", rich_help_panel=_RECIPE)
    ] = None,
    momentum: Annotated[float | None, typer.Option(help="Of SGD; AdamW's beta 1.", rich_help_panel=_RECIPE)] = None,
    nesterov: Annotated[bool | None, typer.Option(help="Nesterov's momentum.", rich_help_panel=_RECIPE)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="As PyTorch has it.", rich_help_panel=_RECIPE)] = None,
    custom_l2: Annotated[
        bool | None, typer.Option(help="Decay the folded kernels instead of the branches'.", rich_help_panel=_RECIPE)
    ] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Of the targets.", rich_help_panel=_RECIPE)] = None,
    distill: Annotated[
        float | None, typer.Option(help="Share of the targets that are a teacher's answers.", rich_help_panel=_RECIPE)
    ] = None,
    auxiliary_weight: Annotated[
        float | None, typer.Option(help="On RepVGGplus's auxiliary losses.", rich_help_panel=_RECIPE)
    ] = None,
    ema: Annotated[
        float | None, typer.Option(help="Momentum of averaged weights, such as 0.9999.", rich_help_panel=_RECIPE)
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(help="Steps whose gradients are averaged.", rich_help_panel=_RECIPE)
    ] = None,
    clip_norm: Annotated[
        float | None, typer.Option(help="Limit of the gradient's norm.", rich_help_panel=_RECIPE)
    ] = None,
    coordinator: Annotated[
        str | None, typer.Option(help="HOST:PORT of process 0; the same everywhere.", rich_help_panel=_HOSTS)
    ] = None,
    num_processes: Annotated[int | None, typer.Option(help="How many processes.", rich_help_panel=_HOSTS)] = None,
    process_id: Annotated[int | None, typer.Option(help="Which one this is, from 0.", rich_help_panel=_HOSTS)] = None,
) -> None:
    """Trains a network on a folder of images, converts the best model, and verifies it.

    Stopped or killed at any moment, the same command with --resume goes on from the last step saved.

    Example: repvgg train flowers --model RepVGG-A0 --size 128 --epochs 40
    """
    given = {name: value for name, value in locals().items() if was_given(context, name)}
    from repvgg.cli.terminal import console, start_keras
    from repvgg.training.request import checked_request

    cluster = _cluster(given.pop("coordinator", None), given.pop("num_processes", None), given.pop("process_id", None))
    _check_quantizing(given)
    check_device(given.pop("device", None))
    request = checked_request(_by_their_names(given), resume=resume, force=force)
    keep_memory()
    start_keras(device)
    from repvgg.training.distribution import make_deterministic
    from repvgg.training.processes import joined
    from repvgg.training.run import run

    if request.deterministic:
        make_deterministic()
    with joined(cluster) if cluster is not None else nullcontext():
        # The others say the same; one voice is enough.
        run(request, console(quiet=bool(process_id)))


def _by_their_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options by the names that `repvgg.train` has for them."""
    others = {"batch": "batch_size", "precision": "dtype"}
    values = {others.get(name, name): value for name, value in given.items() if name not in ("resume", "force")}
    if "dtype" in values:
        values["dtype"] = values["dtype"].value
    return values


def _check_quantizing(given: Mapping[str, Any]) -> None:
    if "qat" in given:
        require_model(given["qat"])
        if "weights" in given:
            raise InputError("--weights and --qat both say what to begin with. Give one of them.")
    elif not given.get("resume"):
        for name in ("per_channel", "processor"):
            if name in given:
                raise InputError(f"--{name.replace('_', '-')} is about --qat, which is not given.")
    if "processor" in given:
        get_processor(given["processor"])
    if "teacher" in given:
        require_network(given["teacher"])


def _cluster(coordinator: str | None, num_processes: int | None, process_id: int | None):  # type: ignore[no-untyped-def]
    from repvgg.training.cluster import Cluster

    if coordinator is None and num_processes is None and process_id is None:
        return None
    if coordinator is None or num_processes is None or process_id is None:
        raise InputError("Several hosts need all three of --coordinator, --num-processes and --process-id.")
    return Cluster(coordinator, num_processes, process_id)
