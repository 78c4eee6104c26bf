"""`repvgg convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from repvgg.base.errors import InputError
from repvgg.cli.networks import CHECKPOINT_SUFFIXES
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from repvgg.verification import VerificationReport


def command(
    source: Annotated[Path, typer.Argument(help="A .keras file, or a PyTorch checkpoint (.pth, .pt, .safetensors).")],
    output: Annotated[Path, typer.Argument(help="The file to write: .keras, .pth, .pt, .bin or .safetensors.")],
    deploy: Annotated[bool, typer.Option("--deploy", help="Turn a training form into the plain stack.")] = False,
    dialect: Annotated[
        str | None, typer.Option(help="Names in a PyTorch checkpoint: official, timm or mmpretrain.")
    ] = None,
    entry: Annotated[
        str | None, typer.Option(help="The entry of a checkpoint to take the weights from, such as model_ema.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Turns a training form into the plain stack of convolutions, and checkpoints into Keras files and back.

    From one .keras file to another, the plain stack is what is written, whether or not --deploy says so; with a PyTorch
    checkpoint on either side, the form stays as it is unless --deploy asks for the plain stack. That is checked against
    the training form before it is saved, and loads in any Keras 3 without this package.

    Example: repvgg convert RepVGG-A0-train.pth a0-deploy.keras --deploy
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.cli.verify import print_report

    to_keras = output.suffix == ".keras"
    if to_keras and dialect is not None:
        raise InputError(f"--dialect is about PyTorch checkpoints, and the output '{output}' is a Keras file.")
    if source.suffix == ".keras" and entry is not None:
        raise InputError(f"--entry is about PyTorch checkpoints, and '{source}' is a Keras file.")
    if output.suffix not in (".keras", *CHECKPOINT_SUFFIXES):
        raise InputError(
            f"The output is saved as {', '.join(CHECKPOINT_SUFFIXES)} for PyTorch, or saved as '.keras'. "
            f"Received: '{output.name}'."
        )
    refuse_existing(output, force=force)
    start_keras()
    from repvgg.checkpoints import load_checkpoint, save_checkpoint
    from repvgg.models.saving import save_model

    model = load_checkpoint(source, entry=entry)
    result, report = _deployed(model) if deploy or (to_keras and source.suffix == ".keras") else (model, None)
    if to_keras:
        save_model(result, output, force=force)
    else:
        save_checkpoint(result, output, dialect or "official", force=force)
    out = console()
    if report is not None:
        print_report(out, report, rows=0)
    out.print(
        f"{source} ({model.count_params():,} parameters) -> {output} ({result.count_params():,} parameters, "
        f"{human_size(output.stat().st_size)})",
        soft_wrap=True,
    )


def _deployed(model: Any) -> "tuple[Any, VerificationReport]":
    from repvgg.base.metadata import set_metadata
    from repvgg.conversion import reparameterize
    from repvgg.verification import verify

    deployed = reparameterize(model)
    report = verify(model, deployed)
    set_metadata(deployed, verification=report.to_dict())
    return deployed, report
