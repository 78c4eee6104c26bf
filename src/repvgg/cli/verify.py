"""`repvgg verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repvgg.base.errors import InputError
from repvgg.cli.networks import (
    CHECKPOINT_SUFFIXES,
    NETWORK_HELP,
    RANDOM_HELP,
    load_network,
    refuse_random_files,
    require_network,
)
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from rich.console import Console

    from repvgg.verification import VerificationReport

UNTOLD = (
    "A checkpoint does not tell strides, dilation and epsilon. If the network had a stem of stride 1, a smaller output "
    "stride or another epsilon, say so: repvgg convert CHECKPOINT model.keras --stem-strides 1 --output-stride 8 "
    "--epsilon 1e-3, and verify that."
)


def command(
    reference: Annotated[
        Path, typer.Argument(help=f"The network that is right, or with --logits the one to check. {NETWORK_HELP}")
    ],
    candidate: Annotated[
        Path | None, typer.Argument(help="The network that should give the same answers; not with --logits.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Image files or folders to compare on; probe inputs if not given."),
    ] = None,
    logits: Annotated[
        Path | None,
        typer.Option(help="A .npz file of images and the logits another program gave for them: compare with these."),
    ] = None,
    rtol: Annotated[
        float | None,
        typer.Option(min=0, help="Largest relative error that passes; 1e-4 if not given, 5e-3 for float16 artifacts."),
    ] = None,
    random_weights: Annotated[bool, typer.Option("--random-weights", help=RANDOM_HELP)] = False,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG of the error of each block.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Compares two forms of a network: exit status 0 if they agree, 1 if they differ.

    With --logits a network is compared with numbers of another program, such as the PyTorch code that a checkpoint came
    from: np.savez("reference.npz", images=images.numpy(), logits=model(images).detach().numpy()).

    Example: repvgg verify model.keras model.onnx --picture error.png
    """
    from repvgg.base.files import refuse_existing, require_file
    from repvgg.cli.terminal import console, error_console

    if (candidate is None) == (logits is None):
        raise InputError("Give a second network to compare with, or --logits FILE.npz; one of the two.")
    if logits is not None:
        if images:
            raise InputError("--logits brings its own images. Leave out --images.")
        require_file(logits, what="file of logits")
    if picture is not None:
        refuse_existing(picture, force=force)
    refuse_random_files(random_weights, reference, candidate)
    for path in (reference, candidate):
        if path is not None:
            require_network(path, random_weights=random_weights)
    from repvgg.data import find_images, read_batch
    from repvgg.runners.classifier import preprocessing_of
    from repvgg.runners.recorded import RecordedRunner
    from repvgg.verification import verify
    from repvgg.verification.picture import draw_report

    network = load_network(reference, random_weights=random_weights)
    if logits is not None:
        recorded = RecordedRunner.load(logits, network.input_shape[2])
        report = verify(recorded, network, recorded.images, rtol)
    elif candidate is not None:
        batch = read_batch(find_images(images), preprocessing_of(network)) if images else None
        report = verify(network, load_network(candidate, random_weights=random_weights), batch, rtol)
    if picture is not None:
        draw_report(report, picture, force=force)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        print_report(console(), report)
    if not report.passed:
        if logits is not None and reference.suffix in CHECKPOINT_SUFFIXES:
            error_console().print(UNTOLD, soft_wrap=True)
        raise typer.Exit(1)


def print_report(out: "Console", report: "VerificationReport", rows: int | None = None) -> None:
    """The report as tables; `rows` limits the blocks shown to the worst ones."""
    from rich.table import Table

    blocks = sorted(report.blocks, key=lambda row: -row.relative_error)[:rows] if rows is not None else report.blocks
    if blocks:
        table = Table("block", title="Each block on its own input")
        table.add_column("relative error", justify="right")
        table.add_column("absolute error", justify="right")
        worst = report.worst_block
        for row in blocks:
            style = "bold red" if row.relative_error > report.rtol else "bold" if row is worst else ""
            table.add_row(row.name, f"{row.relative_error:.2e}", f"{row.absolute_error:.2e}", style=style)
        out.print(table)
    verdict = "[bold green]agree[/]" if report.passed else "[bold red]differ[/]"
    total = Table(show_header=False)
    total.add_row("reference", report.reference)
    total.add_row("candidate", report.candidate)
    total.add_row("images", " and ".join(" x ".join(map(str, shape)) for shape in report.image_shapes))
    total.add_row("largest relative error", f"{report.max_relative_error:.2e} (limit {report.rtol:.0e})")
    total.add_row("largest absolute error", f"{report.max_absolute_error:.2e}")
    if report.top1_agreement is not None:
        total.add_row("top-1 agreement", f"{report.top1_agreement:.2%} of the images")
    if report.worst_block is not None:
        total.add_row("worst block", f"{report.worst_block.name} ({report.worst_block.relative_error:.2e})")
    total.add_row("verdict", verdict)
    out.print(total)
