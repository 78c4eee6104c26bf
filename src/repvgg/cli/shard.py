"""`repvgg shard`."""

from pathlib import Path
from typing import Annotated

import typer

from repvgg.base.words import counted
from repvgg.cli.device import WORKERS_HELP
from repvgg.cli.terminal import FORCE_HELP


def command(
    data: Annotated[
        Path, typer.Argument(help="A folder with one sub-folder a class, or with train/ and val/, or a .csv file.")
    ],
    output: Annotated[Path, typer.Argument(help="The folder to write.")],
    shards: Annotated[int | None, typer.Option(min=1, help="Files for each of train and val.")] = None,
    shard_size: Annotated[int | None, typer.Option(min=1, help="Megabytes of a file, instead; 128 by default.")] = None,
    holdout: Annotated[float, typer.Option(help="Share of each class for val, where there is no val/.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Decides which images are held out, and the order of train.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help=WORKERS_HELP)] = None,
    strict: Annotated[bool, typer.Option("--strict", help="A single file that cannot be read is an error.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """Packs a folder of images into a few large files, which `repvgg train` reads like the folder.

    JPEG files go in as they are; everything else becomes PNG, without loss. Files that cannot be read are named and
    left out.

    Example: repvgg shard flowers flowers-shards --shards 8
    """
    from repvgg.base.errors import InputError
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import console, human_size, start_keras
    from repvgg.data.folder import find_splits
    from repvgg.data.scan import scan

    if shards is not None and shard_size is not None:
        raise InputError("--shards and --shard-size exclude each other. Give one of them.")
    start_keras()
    from repvgg.pipeline.records import SHARD_SIZE, check_output, write_records

    check_output(output, force=force)
    splits = dict(zip(("train", "val"), find_splits(data, holdout, seed), strict=True))
    out = console()
    with progress_bar("Looking through", sum(len(images) for images in splits.values())) as advance:
        reports = {
            name: scan(images, strict=strict, workers=workers, advance=advance) for name, images in splits.items()
        }
    for name, report in reports.items():
        out.print(f"{name}: {report.summary()}", soft_wrap=True, markup=False)
    with progress_bar("Writing", sum(len(report.images) for report in reports.values())) as advance:
        written = write_records(
            reports,
            output,
            shards=shards,
            shard_size=shard_size * 10**6 if shard_size else SHARD_SIZE,
            seed=seed,
            force=force,
            advance=advance,
        )
    for name, part in written.items():
        files = counted(part.shards, "shard")
        out.print(
            f"Written: {name}, {counted(part.images, 'image')} in {files} ({human_size(part.size)})", soft_wrap=True
        )
