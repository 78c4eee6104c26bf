"""`repvgg convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repvgg.base.errors import InputError, VerificationError
from repvgg.cli.networks import (
    CHECKPOINT_SUFFIXES,
    RANDOM_HELP,
    load_model,
    network_named,
    refuse_random_files,
    require_model,
)
from repvgg.cli.terminal import FORCE_HELP
from repvgg.core.architecture import PUBLISHED

if TYPE_CHECKING:
    from repvgg.verification import VerificationReport


def command(
    source: Annotated[
        Path,
        typer.Argument(
            help="A .keras file, a PyTorch checkpoint (.pth, .pt, .safetensors), or a name such as RepVGG-A0, which "
            "stands for its published weights."
        ),
    ],
    output: Annotated[Path, typer.Argument(help="The file to write: .keras, .pth, .pt, .bin or .safetensors.")],
    deploy: Annotated[bool, typer.Option("--deploy", help="Turn a training form into the plain stack.")] = False,
    dialect: Annotated[
        str | None, typer.Option(help="Names in a PyTorch checkpoint: official, timm or mmpretrain.")
    ] = None,
    entry: Annotated[
        str | None, typer.Option(help="The entry of a checkpoint to take the weights from, such as model_ema.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="The part of a checkpoint whose names begin so, such as 'backbone.'; the rest is left."),
    ] = None,
    stem_strides: Annotated[
        int | None, typer.Option(min=1, max=2, help="Stride of the stem, which a checkpoint does not tell: 2 or 1.")
    ] = None,
    output_stride: Annotated[
        int | None, typer.Option(help="Likewise: 32, or 16 or 8 where the last stages are dilated instead.")
    ] = None,
    dilate_first: Annotated[
        bool | None,
        typer.Option(
            "--dilate-first/--dilate-rest",
            help="Whether the first block of such a stage is dilated (the official PSPNet) or not (torchvision, timm).",
        ),
    ] = None,
    epsilon: Annotated[
        float | None,
        typer.Option(
            help="Epsilon of batch normalization on PyTorch's side: in the program that made the checkpoint, or that "
            "will read it; 1e-5 if not given."
        ),
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help=RANDOM_HELP)] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Turns a training form into the plain stack of convolutions, and checkpoints into Keras files and back.

    From one .keras file to another, the plain stack is what is written, whether or not --deploy says so; with a PyTorch
    checkpoint on either side, the form stays as it is unless --deploy asks for the plain stack. That is checked against
    the training form before it is saved, and loads in any Keras 3 without this package.

    Whether a checkpoint was read as what it is can be checked against a few of its own logits: repvgg verify --logits.

    Example: repvgg convert RepVGG-A0-train.pth a0-deploy.keras --deploy
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.cli.verify import print_report

    to_keras = output.suffix == ".keras"
    if to_keras and dialect is not None:
        raise InputError(f"--dialect is about PyTorch checkpoints, and the output '{output}' is a Keras file.")
    from_keras = source.suffix == ".keras"
    variant = network_named(source)
    told = {name: value for name, value in (("entry", entry), ("prefix", prefix)) if value is not None}
    for name in told if from_keras or variant is not None else ():
        kind = "a Keras file" if from_keras else "a name"
        raise InputError(f"--{name} is about PyTorch checkpoints, and '{source}' is {kind}.")
    refuse_random_files(random_weights, source)
    if from_keras and to_keras and epsilon is not None:
        raise InputError("--epsilon is about PyTorch checkpoints, and both files are Keras files.")
    # Values are checked before Keras is started, which takes seconds.
    PUBLISHED.changed(stem_strides, output_stride, dilate_first, epsilon)
    if output.suffix not in (".keras", *CHECKPOINT_SUFFIXES):
        raise InputError(
            f"The output is saved as {', '.join(CHECKPOINT_SUFFIXES)} for PyTorch, or saved as '.keras'. "
            f"Received: '{output.name}'."
        )
    refuse_existing(output, force=force)
    require_model(source, random_weights=random_weights)
    start_keras()
    from repvgg.checkpoints import save_checkpoint
    from repvgg.models.metadata import get_metadata
    from repvgg.models.saving import save_model

    model = load_model(
        source,
        random_weights=random_weights,
        **told,
        stem_strides=stem_strides,
        output_stride=output_stride,
        dilate_first=dilate_first,
        epsilon=None if from_keras else epsilon,
    )
    result, report = _deployed(model) if deploy or (to_keras and from_keras) else (model, None)
    in_training = get_metadata(result).form == "training"
    if to_keras:
        save_model(result, output, force=force)
    else:
        save_checkpoint(result, output, dialect or "official", epsilon=epsilon if in_training else None, force=force)
    out = console()
    if report is not None:
        print_report(out, report, rows=0)
        if _was_plain(model):
            out.print(
                "There were no branches to convert: the network is plain while it trains, and only its normalizations "
                "went into the convolutions.",
                soft_wrap=True,
            )
    out.print(
        f"{source} ({model.count_params():,} parameters) -> {output} ({result.count_params():,} parameters, "
        f"{human_size(output.stat().st_size)})",
        soft_wrap=True,
    )


def _was_plain(model: Any) -> bool:
    from repvgg.blocks.layers import ReparameterizableBlock
    from repvgg.models.layers import all_layers

    blocks = [layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock) and not layer.deploy]
    return bool(blocks) and all(block.kind.is_plain(block.shape) for block in blocks)


def _deployed(model: Any) -> "tuple[Any, VerificationReport]":
    from repvgg.conversion import reparameterize
    from repvgg.models.metadata import set_metadata
    from repvgg.verification import verify

    deployed = reparameterize(model)
    report = verify(model, deployed)
    if not report.passed:
        raise VerificationError(f"{report.summary()} Nothing is written.")
    set_metadata(deployed, verification=report.to_dict())
    return deployed, report
