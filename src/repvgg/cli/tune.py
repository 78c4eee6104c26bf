"""`repvgg tune`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.base.errors import InputError


def command(
    model: Annotated[Path, typer.Argument(help="A .repvgg file; what is measured is kept in it.")],
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images in every call; 1, or what the file fixes, if not given.")
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", "--image-size", help="Pixels: 224, or height and width: 224x320; 224 if not given."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="As many as there are cores if not given.")] = None,
    seconds: Annotated[float, typer.Option(min=0, help="About how long is measured.")] = 10.0,
) -> None:
    """Measures which way of computing each layer is fastest on this processor, and keeps the choice in the file.

    Whoever loads the file on a processor of the same kind, with the same batch, image size and threads, has it from
    then on. Without that a model of costs chooses. `repvgg inspect` shows for what a file is tuned.

    Example: repvgg tune model.repvgg --batch 1 --threads 2
    """
    from repvgg.cli.export import both_sides
    from repvgg.cli.terminal import console
    from repvgg.targets.native.compiling import compile as compile_file

    if model.suffix != ".repvgg":
        raise InputError(f"Files for the engine are tuned, which end in .repvgg; '{model}' does not. Export one first.")
    engine = compile_file(
        model, batch=batch, image_size=both_sides(size), threads=threads, tune=True, tune_seconds=seconds
    )
    with engine:
        console().print(str(engine.schedule), soft_wrap=True, markup=False, highlight=False)
    console().print(f"Kept in {model}.", soft_wrap=True, markup=False)
