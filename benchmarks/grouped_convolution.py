"""One grouped 3x3 convolution with its gradients on TensorFlow: this package's operation beside Keras's.

    python benchmarks/grouped_convolution.py

The shapes are those of RepVGG-B1g4's grouped blocks at 64 and at 224 px, batch 32. Both take turns; medians count.
"""

import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

from repvgg.blocks import ops

GROUPS, BATCH, ROUNDS = 4, 32, 7
SHAPES = ((16, 128), (8, 256), (4, 512), (56, 128), (28, 256), (14, 512))


def step(convolve: Callable[[Any, Any], Any]) -> Any:
    """Forward and backward, compiled as a training step is."""

    @tf.function(autograph=False)
    def run(images: Any, kernel: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([images, kernel])
            loss = tf.reduce_sum(convolve(images, kernel) ** 2)
        return tape.gradient(loss, [images, kernel])

    return run


def main() -> None:
    table = Table("pixels, channels", title=f"Grouped 3x3 convolution and gradients, {GROUPS} groups, batch {BATCH}")
    for heading in ("repvgg, ms", "Keras, ms", "ratio"):
        table.add_column(heading, justify="right")
    for size, channels in SHAPES:
        images = tf.random.stateless_normal((BATCH, size, size, channels), (0, 0))
        kernel = tf.random.stateless_normal((3, 3, channels // GROUPS, channels), (0, 1))
        runs = {
            "repvgg": step(lambda x, k: ops.conv2d(x, k, groups=GROUPS)),
            "keras": step(lambda x, k: keras.ops.conv(x, k, padding="same")),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for counted in range(ROUNDS + 1):
            for name, run in runs.items():
                start = time.perf_counter()
                for gradient in run(images, kernel):
                    gradient.numpy()
                if counted:
                    seconds[name].append(time.perf_counter() - start)
        ours, theirs = (statistics.median(values) for values in seconds.values())
        table.add_row(f"{size}, {channels}", f"{ours * 1e3:.1f}", f"{theirs * 1e3:.1f}", f"{theirs / ours:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
