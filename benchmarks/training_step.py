"""Time of a training step: this package's blocks beside the same network from stock Keras layers.

    python benchmarks/training_step.py                                       # RepVGG-A0, 224 px, batch 32
    python benchmarks/training_step.py --variant RepVGG-B1g4 --size 64       # grouped convolutions

Both are built in one process and take turns, A B A B, so that a slow minute of the machine hits both. The first steps,
which trace and warm up, are not counted. Prints medians, spread and the ratio of the medians; `--out` keeps them.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from rich.console import Console
from rich.table import Table

import repvgg
from stock_keras import stock_training_model


def compiled(model: Any) -> Any:
    """Ready for `train_on_batch`; without XLA, which is slower on a CPU for both."""
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    variant = repvgg.get_variant(arguments.variant)
    shape = (arguments.size, arguments.size, 3)
    models = {
        "repvgg": compiled(repvgg.create_model(variant.name, arguments.classes, shape)),
        "stock Keras layers": compiled(stock_training_model(variant.architecture, arguments.classes, arguments.size)),
    }
    generator = np.random.default_rng(0)
    images = generator.standard_normal((arguments.batch, *shape), dtype=np.float32)
    labels = generator.integers(0, arguments.classes, arguments.batch)

    seconds: dict[str, list[float]] = {name: [] for name in models}
    for step in range(arguments.steps + 2):
        for name, model in models.items():
            start = time.perf_counter()
            loss = model.train_on_batch(images, labels)
            elapsed = time.perf_counter() - start
            if not np.isfinite(loss):
                raise SystemExit(f"{name}: the loss is {loss} at step {step}.")
            if step >= 2:
                seconds[name].append(elapsed)

    title = f"{variant.name}, {arguments.size} px, batch {arguments.batch}, {keras.backend.backend()}"
    table = Table("network", "ms a step (median)", "spread (min to max)", "images/s", title=title)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, values in seconds.items():
        spread = f"{min(values) * 1e3:.0f} to {max(values) * 1e3:.0f}"
        table.add_row(name, f"{medians[name] * 1e3:.0f}", spread, f"{arguments.batch / medians[name]:.1f}")
    Console().print(table)
    ratio = medians["stock Keras layers"] / medians["repvgg"]
    Console().print(f"A step of stock Keras layers takes {ratio:.2f} times as long ({arguments.steps} steps of each).")
    if arguments.out:
        record = {
            "variant": variant.name,
            "size": arguments.size,
            "batch": arguments.batch,
            "backend": keras.backend.backend(),
            "keras": keras.__version__,
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "seconds": seconds,
            "ratio_of_medians": ratio,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
