"""`repvgg predict`."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from io import TextIOWrapper
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from repvgg.base.errors import FileError, InputError
from repvgg.base.words import counted
from repvgg.cli.device import DEVICE_HELP, WORKERS_HELP
from repvgg.cli.networks import NETWORK_HELP, load_network
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from repvgg.evaluation.prediction import Prediction

Write = Callable[["Prediction"], None]


class Format(StrEnum):
    """How predictions are printed."""

    table = "table"
    csv = "csv"
    json = "json"
    jsonl = "jsonl"


_ENDINGS = {".csv": Format.csv, ".json": Format.json, ".jsonl": Format.jsonl}


def command(
    model: Annotated[Path, typer.Argument(help=NETWORK_HELP)],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images run at once.")] = 32,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help=WORKERS_HELP)] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format", help="table, csv, json, or jsonl (an object a line); the ending of --output if not given."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write .csv, .json or .jsonl to this file, which appears when all is done.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """The most likely classes of images, by name, with the preprocessing the model carries.

    Results come as they are found, for any number of images. Files that cannot be read are named and left out; the exit
    status is then 1.

    Example: repvgg predict digits.onnx photos/ --top 3 --format csv
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import console, error_console
    from repvgg.data import find_images
    from repvgg.evaluation.prediction import predict

    chosen = _format(form, output)
    if output is not None:
        refuse_existing(output, force=force)
    paths = find_images(images)
    runner = load_network(model, device=device)
    broken: list[FileError] = []
    done = 0
    with progress_bar("predicting", len(paths)) as advance, _destination(output) as stream:

        def on_broken(path: Path, error: FileError) -> None:  # noqa: ARG001
            broken.append(error)
            error_console().print(f"Left out: {error}", soft_wrap=True, markup=False)
            advance(1)

        with _writing(chosen, stream, paths, runner.metadata.class_names or ()) as write:
            for prediction in predict(
                runner, paths, top, batch, workers=workers, on_broken=None if strict else on_broken
            ):
                write(prediction)
                # At once: a reader at the other end of a pipe, or a terminal, should not wait for a buffer to fill.
                stream.flush()
                done += 1
                advance(1)
        if not done:
            raise FileError(f"None of the {len(paths)} files is a readable image. The first: {broken[0]}")
    if output is not None:
        console().print(f"Written: {output} ({counted(done, 'image')})", soft_wrap=True, markup=False)
    if broken:
        error_console().print(f"{len(broken)} of {len(paths)} files could not be read and were left out.")
        raise typer.Exit(1)


def _format(form: Format | None, output: Path | None) -> Format:
    if output is None:
        return form or Format.table
    by_ending = _ENDINGS.get(output.suffix)
    if form is Format.table:
        raise InputError("A table is for the terminal. Write a file with --format csv, json or jsonl.")
    if by_ending is None and form is None:
        raise InputError(
            f"The ending of '{output.name}' tells no format: '.csv', '.json' and '.jsonl' do. Choose one of them, or "
            "pass --format csv, json or jsonl."
        )
    if by_ending is not None and form not in (None, by_ending):
        raise InputError(
            f"'{output.name}' would hold {form}, by --format. Give it another ending, or leave --format out."
        )
    return form or by_ending or Format.table


@contextmanager
def _destination(output: Path | None) -> Iterator[TextIO]:
    from repvgg.base.files import atomic_output

    # Names of files that are not proper text come out as the bytes they are.
    if output is None:
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")
        yield sys.stdout
        return
    with (
        atomic_output(output) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        yield stream


@contextmanager
def _writing(form: Format, stream: TextIO, paths: Sequence[Path], names: Sequence[str]) -> Iterator[Write]:
    if form is Format.csv:
        yield _csv_writer(stream)
    elif form is Format.jsonl:
        yield lambda prediction: _print(stream, _as_json(prediction) + "\n")
    elif form is Format.json:
        separators = chain(["[\n"], repeat(",\n"))
        yield lambda prediction: _print(stream, next(separators) + _as_json(prediction))
        stream.write("\n]\n")
    else:
        yield _table_writer(stream, paths, names)


def _csv_writer(stream: TextIO) -> Write:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])

    def write(prediction: "Prediction") -> None:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        for rank, (name, probability) in enumerate(pairs, start=1):
            writer.writerow([prediction.path, rank, name, f"{probability:.6f}"])

    return write


def _as_json(prediction: "Prediction") -> str:
    classes = [
        {"class": name, "probability": round(probability, 6)}
        for name, probability in zip(prediction.classes, prediction.probabilities, strict=True)
    ]
    return json.dumps({"image": str(prediction.path), "classes": classes}, ensure_ascii=False)


def _print(stream: TextIO, text: str) -> None:
    stream.write(text)


def _table_writer(stream: TextIO, paths: Sequence[Path], names: Sequence[str]) -> Write:
    """A line an image. Columns are as wide as the longest entry that can come, so that lines align as they arrive."""
    from rich.cells import cell_len, set_cell_size

    from repvgg.cli.terminal import console

    image_width = max(5, *(cell_len(str(path)) for path in paths))
    class_width = max(5, 0, *(cell_len(name) for name in names))
    if stream.isatty():
        image_width = min(image_width, max(20, console().width // 2))
        class_width = min(class_width, max(12, console().width // 4))

    def line(image: str, best: str, probability: str, others: str) -> str:
        if cell_len(image) > image_width:
            # The end of a path says more than its beginning.
            while cell_len(image) > image_width - 1:
                image = image[1:]
            image = "…" + image
        best = best if cell_len(best) > class_width else set_cell_size(best, class_width)
        return f"{set_cell_size(image, image_width)}  {best}  {probability:>6}  {others}".rstrip() + "\n"

    def write(prediction: "Prediction") -> None:
        (best, *others) = zip(prediction.classes, prediction.probabilities, strict=True)
        text = ", ".join(f"{name} {probability:.1%}" for name, probability in others)
        stream.write(line(str(prediction.path), best[0], f"{best[1]:.1%}", text))

    stream.write(line("image", "class", "", "next likely"))
    return write
