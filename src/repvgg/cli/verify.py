"""`repvgg verify`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repvgg.cli.networks import NETWORK_HELP, load_network
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from rich.console import Console

    from repvgg.verification import VerificationReport


def command(
    reference: Annotated[Path, typer.Argument(help=f"The network that is right. {NETWORK_HELP}")],
    candidate: Annotated[Path, typer.Argument(help="The network that should give the same answers.")],
    images: Annotated[
        list[Path] | None, typer.Option(help="Image files or folders to compare on; probe inputs if not given.")
    ] = None,
    rtol: Annotated[float, typer.Option(min=0, help="Largest relative error that passes.")] = 1e-4,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG of the error of each block.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Compares two forms of a network: exit status 0 if they agree, 1 if they differ.

    Example: repvgg verify model.keras model.onnx --picture error.png
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.terminal import console

    if picture is not None:
        refuse_existing(picture, force=force)
    from repvgg.data import find_images, read_batch
    from repvgg.runners.classifier import preprocessing_of
    from repvgg.verification import verify
    from repvgg.verification.picture import draw_report

    first, second = load_network(reference), load_network(candidate)
    batch = read_batch(find_images(images), preprocessing_of(first)) if images else None
    report = verify(first, second, batch, rtol)
    if picture is not None:
        draw_report(report, picture, force=force)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1))
    else:
        print_report(console(), report)
    if not report.passed:
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
        total.add_row("same class", f"{report.top1_agreement:.2%} of the images")
    if report.worst_block is not None:
        total.add_row("worst block", f"{report.worst_block.name} ({report.worst_block.relative_error:.2e})")
    total.add_row("verdict", verdict)
    out.print(total)
