"""Each layer of a compiled network: how it is computed, how long that takes, and two pictures for docs/engine.md.

    python benchmarks/engine_layers.py
    python benchmarks/engine_layers.py --variant RepVGG-B1 --batch 8 --max-isa avx2

The roofline is drawn against the multiply-adds that this machine was measured to do. One thread, timed by the time it
had a core, so that other processes matter through caches and memory only. What a layer is said to do are the operations
of its definition: minimal filtering may go above the peak, which is its point.
"""

import argparse
import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from rich.console import Console
from rich.table import Table

from engine import deployed
from repvgg.engine import Convolution, Dense, host_isa
from repvgg.engine.choose import choose
from repvgg.engine.ir import Function, declarations
from repvgg.engine.isa import Isa
from repvgg.engine.machine import Code
from repvgg.engine.profile import profile
from repvgg.engine.schedule import Schedule, Step, Winograd
from repvgg.targets.native.plan import plan_of

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


def peak(isa: Isa) -> float:
    """GFLOP/s of multiply-adds that wait for nothing: twelve sums in registers."""
    f = Function("spin", [("ptr", "%out"), ("i64", "%turns")], isa)
    sums = 12
    values = [f.splat(1 + index / 8) for index in range(sums)]

    def turn(_: Any, now: list[str]) -> list[str]:
        return [f.fma(value, f.splat(0.999), f.splat(0.001)) for value in now]

    last = f.loop(0, "%turns", 1, turn, [(f.vector, value) for value in values])
    for index, value in enumerate(last):
        f.store(value, f.at("%out", index * isa.lanes))
    code = Code(declarations(isa) + f.text().replace("define internal", "define"), isa)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(code.address("spin"))
    out = np.zeros(sums * isa.lanes, np.float32)
    turns, best = 1_000_000, 0.0
    for _ in range(10):
        start = time.thread_time()
        call(out.ctypes.data, turns)
        best = max(best, 2 * sums * isa.lanes * turns / (time.thread_time() - start) / 1e9)
    code.close()
    return best


def operations(step: Step, batch: int) -> int:
    """Multiply-adds of a layer by its definition."""
    layer = step.layer
    if isinstance(layer, Convolution):
        return batch * step.result[0] * step.result[1] * layer.kernel.size
    return batch * layer.kernel.size if isinstance(layer, Dense) else 0


def rows_of(schedule: Schedule, plan: Any) -> list[dict[str, Any]]:
    times = {entry.layer: entry.seconds for entry in profile(plan, schedule)}
    rows = []
    for step in schedule.steps:
        seconds = times.get(step.layer.name, 0.0)
        if operations(step, schedule.batch) and seconds:
            rows.append(
                {
                    "layer": step.layer.name,
                    "how": str(step.choice),
                    "microseconds": round(seconds * 1e6, 1),
                    "gflops": round(2 * operations(step, schedule.batch) / seconds / 1e9, 1),
                    "bytes": step.layer.kernel.nbytes,  # type: ignore[union-attr]
                }
            )
    return rows


def draw_roofline(rows: list[dict[str, Any]], top: float, title: str, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    colors = ["tab:blue" if row["how"].startswith("F") else "tab:gray" for row in rows]
    axes.bar(range(len(rows)), [row["gflops"] for row in rows], color=colors)
    axes.axhline(top, color="tab:red", label=f"peak of multiply-adds, measured: {top:.0f} GFLOP/s")
    for place, row in enumerate(rows):
        label = row["how"].split()[0].rstrip(",") if row["how"].startswith("F") else row["how"].split(",")[0]
        axes.text(place, row["gflops"] + 4, label, ha="center", va="bottom", fontsize=7, rotation=90)
    axes.set_xticks(range(len(rows)), [row["layer"] for row in rows], rotation=60, ha="right", fontsize=8)
    axes.set_ylabel("GFLOP/s of the layer's definition")
    axes.set_ylim(0, 1.25 * max(row["gflops"] for row in rows))
    axes.set_title(title)
    axes.legend(loc="upper left", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_tiles(step: Step, path: Path) -> None:
    """The tiles of one layer: what each reads, and what it gives."""
    choice = step.choice
    if not isinstance(choice, Winograd) or not isinstance(step.layer, Convolution):
        raise SystemExit(f"'{step.layer.name}' is not computed in tiles.")
    matrices, (height, width) = choice.transform(step.layer), step.result
    m, n = choice.m, matrices.n
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 4.3), layout="constrained")
    down, across = choice.tiling(step.result)
    for axes, name in ((left, "reads"), (right, "gives")):
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"what a tile {name}")
        axes.set_xlim(-1.6, max(width, (across - 1) * m + n - 1) + 0.6)
        axes.set_ylim(max(height, (down - 1) * m + n - 1) + 0.6, -1.6)
        for y in range(height):
            for x in range(width):
                axes.add_patch(Rectangle((x, y), 1, 1, fill=False, edgecolor="0.85", linewidth=0.6))
    for row in range(down):
        for column in range(across):
            chosen = (row, column) in ((0, 0), (down - 1, across - 1))
            color = ("tab:blue" if row == 0 else "tab:orange") if chosen else "0.55"
            style = {"fill": chosen, "alpha": 0.35 if chosen else 1.0, "edgecolor": color, "facecolor": color}
            if chosen:
                left.add_patch(Rectangle((column * m - 1, row * m - 1), n, n, linewidth=1.5, **style))
            size = (min(m, width - column * m), min(m, height - row * m))
            right.add_patch(Rectangle((column * m, row * m), *size, linewidth=1.2, **style))
    layer = step.layer
    figure.suptitle(
        f"{layer.name}: {layer.channels_in} -> {layer.channels} channels, {height} x {width}, F({m} x {m}, 3 x 3): "
        f"{n * n} products instead of {9 * m * m} a tile"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--max-isa", choices=("avx2", "avx512"))
    parser.add_argument("--results", type=Path, default=HERE / "results" / "engine_layers.json")
    parser.add_argument("--pictures", type=Path, default=DOCS)
    arguments = parser.parse_args()
    plan, isa = plan_of(deployed(arguments.variant)), host_isa(arguments.max_isa)
    schedule = choose(plan, isa, batch=arguments.batch, image_size=(arguments.size, arguments.size), threads=1)
    top, rows = peak(isa), rows_of(schedule, plan)
    table = Table("layer", "how", "microseconds", "GFLOP/s", "of the peak")
    for row in rows:
        share = f"{row['gflops'] / top:.0%}"
        table.add_row(row["layer"], row["how"], f"{row['microseconds']:.0f}", f"{row['gflops']:.0f}", share)
    Console().print(table)
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    processor = cpu.partition(":")[2].strip()
    found = {
        "processor": processor,
        "variant": arguments.variant,
        "size": arguments.size,
        "batch": arguments.batch,
        "isa": isa.name,
        "peak_gflops": round(top, 1),
        "layers": rows,
    }
    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    title = f"{arguments.variant}, {arguments.size} px, batch {arguments.batch}, one thread, {isa.name}, {processor}"
    draw_roofline(rows, top, title, arguments.pictures / "engine_roofline.png")
    tiled = [step for step in schedule.steps if isinstance(step.choice, Winograd) and step.result[0] <= 14]
    if tiled:
        draw_tiles(tiled[-1], arguments.pictures / "engine_tiles.png")


if __name__ == "__main__":
    main()
