"""Every network of the table in every target and precision, at full width: written, loaded, compared.

    python benchmarks/export_all.py
    python benchmarks/export_all.py RepVGG-A0 RepVGG-B1g4 --targets onnx litert

Each network has a process of its own, and each file is removed when it has been measured. Results are kept in
benchmarks/results/export_all.json after every row; what is there already is not measured again (--again does).
Weights are random, statistics of normalization as training leaves them, images of 64 and 75 pixels. The relative error
is the largest difference to the deploy form in Keras over the largest logit.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

import repvgg
from repvgg.targets import TARGETS
from repvgg.verification import TOLERANCES

RESULTS = Path(__file__).parent / "results" / "export_all.json"

Row = dict[str, Any]


def pairs(targets: list[str]) -> list[tuple[str, str]]:
    return [(name, precision) for name in targets for precision in TARGETS[name].precisions if precision in TOLERANCES]


def measure(variant: str, wanted: list[tuple[str, str]], results: Path) -> None:
    """Runs in its own process."""
    import numpy as np

    model = repvgg.create_model(variant)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        low, high = {
            "gamma": (0.7, 1.7),
            "moving_variance": (0.3, 3),
            "beta": (-0.5, 0.5),
            "moving_mean": (-0.5, 0.5),
        }.get(variable.path.rsplit("/", 1)[-1], (None, None))
        if low is not None:
            variable.assign(generator.uniform(low, high, variable.shape))
    deployed = repvgg.reparameterize(model)
    del model
    for name, precision in wanted:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"model{TARGETS[name].suffix}")
            row: Row = {
                "variant": variant,
                "target": name,
                "precision": precision,
                "parameters": deployed.count_params(),
            }
            try:
                written = repvgg.export(deployed, path, name, precision)
            except repvgg.base.errors.RepVGGError as error:
                row["error"] = str(error)
            else:
                row |= {"relative_error": written.report.max_relative_error, "bytes": written.size}
            row["seconds"] = round(time.perf_counter() - start, 1)
        rows = [*read(results), row]
        results.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(row), flush=True)


def read(results: Path) -> list[Row]:
    return json.loads(results.read_text(encoding="utf-8")) if results.exists() else []


def show(rows: list[Row]) -> None:
    table = Table(title="Relative error and size of every artifact")
    columns = list(dict.fromkeys((row["target"], row["precision"]) for row in rows))
    table.add_column("network")
    for name, precision in columns:
        table.add_column(f"{name}\n{precision}", justify="right")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        found = {(row["target"], row["precision"]): row for row in rows if row["variant"] == variant}
        table.add_row(variant, *(cell(found.get(column)) for column in columns))
    Console(width=max(120, Console().width)).print(table)


def cell(row: Row | None) -> str:
    if row is None:
        return "-"
    return "FAILED" if "error" in row else f"{row['relative_error']:.0e}\n{row['bytes'] / 1e6:.1f} MB"


def main() -> int:
    targets = [name for name, target in TARGETS.items() if not target.machine_code]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=repvgg.list_variants())
    parser.add_argument("--targets", nargs="+", default=targets, choices=targets)
    parser.add_argument("--again", action="store_true", help="measure what is in the results already")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    done = {(row["variant"], row["target"], row["precision"]) for row in read(arguments.results) if "error" not in row}
    if arguments.inner:
        (variant,) = arguments.variants
        measure(variant, [pair for pair in pairs(arguments.targets) if (variant, *pair) not in done], arguments.results)
        return 0
    asked = {(variant, *pair) for variant in arguments.variants for pair in pairs(arguments.targets)}
    kept = [
        row
        for row in read(arguments.results)
        if "error" not in row and not (arguments.again and (row["variant"], row["target"], row["precision"]) in asked)
    ]
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    done = {(row["variant"], row["target"], row["precision"]) for row in kept}
    for variant in arguments.variants:
        if any(key[0] == variant for key in asked - done):
            command = [sys.executable, __file__, variant, "--inner", "--results", str(arguments.results)]
            subprocess.run([*command, "--targets", *arguments.targets], check=True)
    rows = read(arguments.results)
    show(rows)
    failed = [row for row in rows if "error" in row]
    for row in failed:
        print(f"{row['variant']} {row['target']} {row['precision']}: {row['error']}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
