"""`repvgg evaluate`."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repvgg.cli.device import DEVICE_HELP, WORKERS_HELP
from repvgg.cli.networks import NETWORK_HELP, load_network
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from repvgg.evaluation import ClassRow, EvaluationReport

ROWS = 30
"""Classes in the table; of more, the worst are shown."""

MISTAKES = 5
CONFUSIONS = 5


def command(
    model: Annotated[Path, typer.Argument(help=NETWORK_HELP)],
    data: Annotated[
        Path, typer.Argument(help="A folder with one sub-folder a class, or with val/ that is one, or a .csv file.")
    ],
    batch: Annotated[int, typer.Option(min=1, help="Images run at once.")] = 32,
    device: Annotated[str | None, typer.Option(help=DEVICE_HELP)] = None,
    workers: Annotated[int | None, typer.Option(min=1, help=WORKERS_HELP)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Write a PNG: confusion, calibration, recall, the worst mistakes.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write a CSV file with a row a class, the confusion matrix included.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that is not an image.")] = False,
    sorted_folders: Annotated[
        bool,
        typer.Option(
            "--sorted-folders", help="Sorted, the folders stand in the order of the outputs, whatever their names."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """How good a network is on labelled images: accuracy, each class, calibration, the worst mistakes, speed.

    Images are prepared as published accuracies are measured. Files that cannot be read are named and left out; the exit
    status is then 1.

    Example: repvgg evaluate flowers.onnx flowers/val --picture flowers.png
    """
    from repvgg.base.files import refuse_existing
    from repvgg.cli.progress import progress_bar
    from repvgg.cli.terminal import console, error_console
    from repvgg.evaluation.labels import labelled_for

    for output in (picture, table):
        if output is not None:
            refuse_existing(output, force=force)
    runner = load_network(model, device=device)
    from repvgg.evaluation import evaluate

    images = labelled_for(runner.metadata.class_names, data, sorted_folders=sorted_folders)
    with progress_bar("evaluating", len(images)) as advance:
        report = evaluate(
            runner,
            images,
            batch_size=batch,
            workers=workers,
            advance=advance,
            strict=strict,
            sorted_folders=sorted_folders,
        )
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        print_evaluation(console(), report)
    if table is not None:
        write_csv(report, table)
    if picture is not None:
        from repvgg.evaluation.picture import draw_evaluation

        draw_evaluation(report, picture, force=force)
    if report.broken:
        out = error_console()
        for file in report.broken:
            out.print(f"Left out: {file.reason}", soft_wrap=True, markup=False)
        out.print(f"{len(report.broken)} of {len(images)} files could not be read and were left out.")
        raise typer.Exit(1)


def print_evaluation(out: "Console", report: "EvaluationReport") -> None:
    """The report as tables: each class, what is mixed up most, the worst mistakes, and all images together."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from repvgg.evaluation.metrics import most_confused

    rows, title = _rows(report)
    classes = Table("class", title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("images", "recall", "precision"):
        classes.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        classes.add_row(escape(row.name), str(row.images), _percent(row.recall), _percent(row.precision))
    out.print(classes)

    confusions = most_confused(report.confusion, CONFUSIONS)
    if confusions:
        mixed = Table("truth", "answer", title="Mixed up most often", box=box.SIMPLE_HEAD, pad_edge=False)
        mixed.add_column("images", justify="right", no_wrap=True)
        for truth, answer, count in confusions:
            mixed.add_row(escape(report.classes[truth].name), escape(report.classes[answer].name), str(count))
        out.print(mixed)
    if report.mistakes:
        worst = Table("image", "truth", "answer", title="Most confident mistakes", box=box.SIMPLE_HEAD, pad_edge=False)
        worst.add_column("probability", justify="right", no_wrap=True)
        for mistake in report.mistakes[:MISTAKES]:
            worst.add_row(
                escape(str(mistake.path)), escape(mistake.true), escape(mistake.predicted), f"{mistake.probability:.1%}"
            )
        out.print(worst)

    total = Table(show_header=False)
    total.add_row("network", escape(report.network))
    total.add_row("images", f"{report.images} in {len(report.classes)} classes")
    if report.broken:
        total.add_row("left out", f"[bold red]{len(report.broken)} that cannot be read[/]")
    total.add_row("top-1", f"[bold]{report.top1:.2%}[/]")
    if len(report.classes) > 5:
        total.add_row("top-5", f"{report.top5:.2%}")
    total.add_row("negative log-likelihood", f"{report.negative_log_likelihood:.4f}")
    total.add_row("expected calibration error", f"{report.expected_calibration_error:.2%}")
    total.add_row("network alone", f"{report.network_images_per_second:.1f} images/s")
    total.add_row("with reading", f"{report.images_per_second:.1f} images/s")
    out.print(total)


def write_csv(report: "EvaluationReport", path: Path) -> None:
    """A row a class: its images, recall and precision, and how many of its images got each answer."""
    from repvgg.base.files import atomic_output

    with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        answers = [f"answer {row.name}" for row in report.classes]
        writer.writerow(["class", "images", "recall", "precision", *answers])
        for row, counts in zip(report.classes, report.confusion, strict=True):
            shares = ("" if share is None else f"{share:.6f}" for share in (row.recall, row.precision))
            writer.writerow([row.name, row.images, *shares, *counts])


def _rows(report: "EvaluationReport") -> "tuple[Sequence[ClassRow], str | None]":
    if len(report.classes) <= ROWS:
        return report.classes, None
    known = [row for row in report.classes if row.recall is not None]
    return sorted(known, key=lambda row: row.recall or 0.0)[:ROWS], f"The {ROWS} worst of {len(report.classes)} classes"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
