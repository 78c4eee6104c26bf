"""`repvgg benchmark`."""

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from repvgg.base.words import counted
from repvgg.cli.terminal import FORCE_HELP

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from repvgg.benchmarking.report import BenchmarkReport


def command(
    networks: Annotated[
        list[str] | None,
        typer.Argument(
            help="Variants such as RepVGG-A0, baselines such as ResNet-50, or files (.onnx, .xml, .tflite, .keras, a "
            "SavedModel); a selection of the paper's table if none is given."
        ),
    ] = None,
    runtimes: Annotated[
        str | None,
        typer.Option(
            help="Where named networks run, with commas: keras, onnx, openvino, litert, native (all five if not "
            "given), onnx-int8, openvino-int8, litert-int8. A file runs in its own."
        ),
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="In INT8 as well, where a runtime has it.")] = False,
    batch: Annotated[int, typer.Option(min=1, help="Images in a call.")] = 1,
    size: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side; as published, or as a file was made, if not given.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="To calculate with; one a core if not given.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often everybody has a turn.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    table: Annotated[
        Path | None, typer.Option("--csv", help="Write a CSV file with a row a network and runtime.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="Write a PNG: accuracy against speed, a curve a family.")] = None,
    force: Annotated[bool, typer.Option("--force", help=FORCE_HELP)] = False,
) -> None:
    """How fast networks run on this machine: RepVGG beside others, or your own files beside each other.

    Everything is prepared first, and its answers are compared; then all take turns, so that what else the machine does
    hits all of them, and medians are shown.

    Example: repvgg benchmark RepVGG-A0 RepVGG-B1 ResNet-50 --batch 16 --picture speed.png
    """
    from repvgg.base.files import refuse_existing
    from repvgg.benchmarking.request import checked_request
    from repvgg.cli.terminal import console, error_console, start_keras

    for output in (table, picture):
        if output is not None:
            refuse_existing(output, force=force)
    request = checked_request(
        networks or [],
        [name.strip() for name in runtimes.split(",")] if runtimes is not None else [],
        int8=int8,
        batch=batch,
        size=size,
        threads=threads,
        rounds=rounds,
    )
    if request.needs_keras:
        start_keras()
    from repvgg.benchmarking.run import run

    report = run(request, error_console())
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=1, ensure_ascii=False))
    else:
        print_benchmark(console(), report)
    if table is not None:
        write_csv(report, table)
    if picture is not None:
        from repvgg.benchmarking.picture import draw_benchmark

        draw_benchmark(report, picture, force=force)


def print_benchmark(out: "Console", report: "BenchmarkReport") -> None:
    """Two tables: what the networks are, and how fast they were; then what the figures belong to."""
    for table in (_networks_table(report), _speed_table(report)):
        out.print(table)
    out.print(f"{report.machine}; {counted(report.threads, 'thread')}.", soft_wrap=True, markup=False)
    out.print(str(report.load), soft_wrap=True, style="yellow" if report.load.heavy else "")
    missing = [row for row in report.rows if row.missing is not None]
    for row in missing:
        out.print(f"{row.network.name}, {row.runtime}: {row.missing}.", soft_wrap=True, markup=False)


def _networks_table(report: "BenchmarkReport") -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("network", box=box.SIMPLE_HEAD, pad_edge=False, title="What is timed", title_justify="left")
    for heading in ("px", "parameters, M", "GMAC", "Winograd, G", "published top-1"):
        table.add_column(heading, justify="right")
    for network in report.networks():
        height, width = network.size
        table.add_row(
            escape(network.name),
            str(height) if height == width else f"{height}x{width}",
            "-" if network.parameters is None else f"{network.parameters / 1e6:.2f}",
            "-" if network.macs is None else f"{network.macs / 1e9:.2f}",
            "-" if network.winograd is None else f"{network.winograd / 1e9:.2f}",
            "-" if network.top1 is None else f"{network.top1:.2f}",
        )
    return table


def _speed_table(report: "BenchmarkReport") -> "Table":
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        "network",
        "runtime",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        title=f"{counted(report.batch, 'image')} at once, medians of {counted(report.rounds, 'round')} "
        "(and where half of the calls were)",
        title_justify="left",
    )
    for heading in ("images/s", "ms per image", "", "times first"):
        table.add_column(heading, justify="right", no_wrap=True)
    last = None
    for row in report.rows:
        name = "" if row.network.name == last else escape(row.network.name)
        last = row.network.name
        if row.figures is None:
            table.add_row(name, row.runtime, "-", "-", "-", "-")
            continue
        per_image = row.figures.milliseconds_per_image
        table.add_row(
            name,
            row.runtime,
            f"{row.figures.images_per_second:.1f}",
            f"{per_image.median:.2f}",
            f"{per_image.low:.2f} to {per_image.high:.2f}",
            f"{row.figures.times_first.median:.2f}",
        )
    return table


def write_csv(report: "BenchmarkReport", path: Path) -> None:
    """A row a network and runtime."""
    from repvgg.base.files import atomic_output

    rows = report.flat_rows()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_output(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
