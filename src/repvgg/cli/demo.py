"""`repvgg demo`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.base.startup import keep_memory
from repvgg.cli.terminal import FORCE_HELP


def command(
    output: Annotated[Path, typer.Option(help="Folder for everything that is made.")] = Path("repvgg-demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training digits.")] = 24,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 0,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Handwritten digits, from training to an ONNX file, in a few minutes on a CPU and without a download.

    Example: repvgg demo --output demo
    """
    from repvgg.cli.terminal import console, start_keras

    keep_memory()
    start_keras()
    from repvgg.demo import run

    run(output, epochs=epochs, seed=seed, force=force, out=console())
