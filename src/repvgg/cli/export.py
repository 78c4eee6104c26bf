"""`repvgg export`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.cli.terminal import FORCE_HELP


def command(
    source: Annotated[
        Path, typer.Argument(help="A .keras file or a PyTorch checkpoint; a training form is converted first.")
    ],
    output: Annotated[Path, typer.Argument(help="The file to write, such as model.onnx.")],
    target: Annotated[
        str | None, typer.Option("--format", help="onnx or keras; what the output's ending says if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Writes a model for another runtime, loads the file there, and keeps it only if its answers are the same.

    Example: repvgg export model.keras model.onnx
    """
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.cli.verify import print_report
    from repvgg.files import refuse_existing

    refuse_existing(output, force=force)
    start_keras()
    from repvgg.checkpoints import load_checkpoint
    from repvgg.exporters import format_of
    from repvgg.exporting import export

    target = target or format_of(output)
    result = export(load_checkpoint(source), output, target, force=force)
    out = console()
    if result.converted:
        out.print(f"{source} is in training form; it was converted first.", soft_wrap=True)
    print_report(out, result.report, rows=0)
    out.print(f"Written: {result.path} ({human_size(result.size)})", soft_wrap=True)
