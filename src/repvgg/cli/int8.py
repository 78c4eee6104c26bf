"""INT8 on the terminal: what was tried, what came out, and what it costs each layer."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from repvgg.exporting.int8 import Int8Result
    from repvgg.quantization import LayerRow


def print_int8(out: "Console", result: "Int8Result") -> None:
    """The attempts, the verdict, and, if they were looked at, the layers."""
    from rich.table import Table

    from repvgg.base.processor import PROCESSORS
    from repvgg.cli.terminal import human_size
    from repvgg.exporting.int8.report import ATTEMPT_HEADINGS

    report = result.report
    if result.after:
        _print_layers(out, result.before, result.after)
    table = Table(*ATTEMPT_HEADINGS, title="What was tried (gain: points of top-1 agreement)")
    for attempt in report.attempts:
        table.add_row(*attempt.row())
    out.print(table)
    total = Table(show_header=False)
    total.add_row("criterion", report.criterion())
    total.add_row("made for", f"{report.processor}: {PROCESSORS[report.processor]}")
    if report.float_accuracy is not None and report.accuracy is not None:
        total.add_row("accuracy in float32", f"{report.float_accuracy:.2%}")
        total.add_row("accuracy in INT8", f"{report.accuracy:.2%}")
    total.add_row("top-1 agreement", f"{report.agreement:.2%} of {report.images} images, with float32")
    total.add_row("largest relative error", f"{report.relative_error:.2e}")
    total.add_row("size", f"{human_size(report.size)} ({human_size(report.float_size)} in float32)")
    if report.speedup is not None:
        total.add_row(
            "speed", f"{report.speedup:.1f} times float32 in the same runtime, a small batch, measured in passing"
        )
    total.add_row("verdict", "[bold green]good enough[/]")
    out.print(total)


def _print_layers(out: "Console", before: "Sequence[LayerRow]", after: "Sequence[LayerRow]") -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        box=SIMPLE,
        padding=(0, 0, 0, 1),
        pad_edge=False,
        title="Each layer alone in 8 bits, as it came > as it is quantized\n"
        "spread and outliers: largest over smallest and over median |weight| of the channels\n"
        "weights, output, logits: signal to quantization noise in dB",
    )
    table.add_column("layer", no_wrap=True)
    for heading in ("spread", "outliers", "kurtosis", "weights", "output", "logits", "top-1 agreement"):
        table.add_column(heading, justify="right", no_wrap=True)
    for first, second in zip(before, after, strict=True):
        table.add_row(
            first.name,
            f"{first.spread:.3g}",
            f"{first.outliers:.1f}",
            f"{first.kurtosis:.0f}",
            f"{first.weight_sqnr:.0f}",
            f"{first.output_sqnr:.0f} > {second.output_sqnr:.0f}",
            f"{first.network_sqnr:.0f} > {second.network_sqnr:.0f}",
            "-"
            if first.agreement is None or second.agreement is None
            else f"{100 * first.agreement:.0f} > {100 * second.agreement:.0f} %",
        )
    out.print(table)
