"""`repvgg predict`."""

import csv
import json
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from repvgg.predict import Prediction


class Format(StrEnum):
    """How predictions are printed."""

    table = "table"
    csv = "csv"
    json = "json"


def command(
    model: Annotated[Path, typer.Argument(help="A .keras or .onnx file.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="Classes to show for each image.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images run at once.")] = 32,
    output: Annotated[Format, typer.Option("--format", help="table, csv, or json (one object a line).")] = Format.table,
) -> None:
    """The most likely classes of images, by name, with the preprocessing the model carries.

    Example: repvgg predict digits.onnx photos/ --top 3 --format csv
    """
    from repvgg.cli.terminal import start_keras
    from repvgg.data import find_images
    from repvgg.predict import predict
    from repvgg.runners import load_runner

    paths = find_images(images)
    if model.suffix == ".keras":
        start_keras()
    predictions = predict(load_runner(model), paths, top, batch)
    {Format.table: _print_table, Format.csv: _print_csv, Format.json: _print_json}[output](predictions)


def _print_table(predictions: "Iterable[Prediction]") -> None:
    from rich.table import Table

    from repvgg.cli.terminal import console

    table = Table("image", "classes, most likely first")
    for prediction in predictions:
        pairs = zip(prediction.classes, prediction.probabilities, strict=True)
        table.add_row(str(prediction.path), "  ".join(f"{name} {probability:.1%}" for name, probability in pairs))
    console().print(table)


def _print_csv(predictions: "Iterable[Prediction]") -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "rank", "class", "probability"])
    for prediction in predictions:
        for rank, (name, probability) in enumerate(
            zip(prediction.classes, prediction.probabilities, strict=True), start=1
        ):
            writer.writerow([prediction.path, rank, name, f"{probability:.6f}"])


def _print_json(predictions: "Iterable[Prediction]") -> None:
    for prediction in predictions:
        classes = [
            {"class": name, "probability": round(probability, 6)}
            for name, probability in zip(prediction.classes, prediction.probabilities, strict=True)
        ]
        typer.echo(json.dumps({"image": str(prediction.path), "classes": classes}, ensure_ascii=False))
