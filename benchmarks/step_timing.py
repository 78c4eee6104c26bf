"""What the benchmarks of training steps share: taking turns, the table, the record."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

UNCOUNTED = 2
"""The first steps of each, which trace and warm up."""


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how much of it was used."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "avx512_vnni": any("avx512_vnni" in line for line in lines if line.startswith("flags")),
        "cores": os.cpu_count(),
        "held_to": os.environ.get("ONEDNN_MAX_CPU_ISA", "all it has"),
        "onednn_in_tensorflow": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow decides"),
    }


def compiled(model: Any) -> Any:
    """Ready for `train_on_batch`; without XLA, which is slower on a CPU."""
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def take_turns(steps: Mapping[str, Callable[[], float]], count: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Runs the steps A B A B, so that a slow minute of the machine hits all; each returns its loss.

    Returns:
        Seconds of `count` steps of each, and the loss of the very first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    first: dict[str, float] = {}
    for number in range(count + UNCOUNTED):
        for name, step in steps.items():
            start = time.perf_counter()
            loss = step()
            elapsed = time.perf_counter() - start
            if not np.isfinite(loss):
                raise SystemExit(f"{name}: the loss is {loss} at step {number}.")
            first.setdefault(name, loss)
            if number >= UNCOUNTED:
                seconds[name].append(elapsed)
    return seconds, first


def report(title: str, seconds: Mapping[str, list[float]], batch: int) -> float:
    """Prints medians and spread; returns how many times as long the second one takes as the first."""
    table = Table("network", "ms a step (median)", "spread (min to max)", "images/s", title=title)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        spread = f"{min(values) * 1e3:.0f} to {max(values) * 1e3:.0f}"
        table.add_row(name, f"{medians[name] * 1e3:.0f}", spread, f"{batch / medians[name]:.1f}")
    Console().print(table)
    ours, theirs = medians
    ratio = medians[theirs] / medians[ours]
    steps = len(seconds[ours])
    Console().print(f"A step of {theirs} takes {ratio:.2f} times as long ({steps} steps of each).")
    return ratio


def save(path: Path, seconds: Mapping[str, list[float]], ratio: float, **facts: Any) -> None:
    """Writes the figures as JSON."""
    record = {
        **facts,
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        **machine(),
        "seconds": seconds,
        "ratio_of_medians": ratio,
    }
    path.write_text(json.dumps(record, indent=1) + "\n")
