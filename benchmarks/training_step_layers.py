"""Where a training step's time goes on TensorFlow: each kind of block, in its plain form and as it is trained.

    python benchmarks/training_step_layers.py                        # RepVGG-A0, 224 px, batch 32
    ONEDNN_MAX_CPU_ISA=AVX2 python benchmarks/training_step_layers.py

For each shape of block: its 3x3 convolution alone, forward and both gradients, with the multiplications per second that
this amounts to; and the whole block, forward and backward, in two forms, which take turns, A B A B: plain, branch by
branch, and as it is trained (`blocks/merging.py`). Medians count. The last row adds up all blocks of the network.
"""

import argparse
import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

# What importing repvgg does, where nothing has imported TensorFlow before.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import repvgg
from repvgg.base.startup import keep_memory
from repvgg.blocks import ops
from step_timing import machine

UNCOUNTED = 2
FORMS = ("plain", "trained")
PARTS = ("forward", "kernel gradient", "input gradient")

Spec = Any
Step = Callable[[], Any]


def take_turns(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + UNCOUNTED):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number >= UNCOUNTED:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


@contextmanager
def as_form(form: str) -> Iterator[None]:
    """What is traced inside is of this form."""
    with mock.patch.object(ops, "merging_pays", return_value=form == "trained"):
        yield


def convolution_steps(spec: Spec, images: Any, outputs: Any) -> dict[str, Step]:
    """The 3x3 convolution alone, as the block computes it."""
    kernel = tf.random.stateless_normal((3, 3, spec.in_channels // spec.groups, spec.filters), (0, 1))

    def gradient(wanted: str) -> Step:
        @tf.function(autograph=False)
        def run(images: Any, kernel: Any, gradient: Any) -> Any:
            inputs = {"image": images, "kernel": kernel}[wanted]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(inputs)
                found = ops.conv2d(images, kernel, strides=spec.strides, groups=spec.groups)
            # Without the forward pass, which nothing asks for: TensorFlow leaves it out.
            return tape.gradient(found, inputs, gradient)

        return lambda: run(images, kernel, outputs)

    forward = tf.function(lambda x, k: ops.conv2d(x, k, strides=spec.strides, groups=spec.groups), autograph=False)
    steps = {"forward": lambda: forward(images, kernel), "kernel gradient": gradient("kernel")}
    # Nobody asks for the gradient of images.
    return steps if spec.stage == 0 else {**steps, "input gradient": gradient("image")}


def block_steps(spec: Spec, images: Any, outputs: Any) -> dict[str, Step]:
    """The whole block in training, in both forms; those with gradients go forward and backward."""
    steps: dict[str, Step] = {}
    for form in FORMS:
        block = repvgg.RepVGGBlock(spec.filters, spec.strides, spec.groups)
        block.build(images.shape)

        @tf.function(autograph=False)
        def forward(images: Any, block: Any = block) -> Any:
            return block(images, training=True)

        @tf.function(autograph=False)
        def both(images: Any, gradient: Any, block: Any = block) -> Any:
            variables = [variable.value for variable in block.trainable_variables]
            inputs = variables if spec.stage == 0 else [images, *variables]
            with tf.GradientTape() as tape:
                tape.watch(images)
                found = block(images, training=True)
            return tape.gradient(found, inputs, gradient)

        with as_form(form):
            forward(images)
            both(images, outputs)
        steps[f"{form}, forward"] = lambda run=forward: run(images)
        steps[f"{form}, both"] = lambda run=both: run(images, outputs)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    keep_memory()
    keras.utils.set_random_seed(0)
    side = arguments.size
    places: Counter[tuple[int, Spec]] = Counter()
    for spec in repvgg.get_variant(arguments.variant).architecture.blocks():
        places[side, spec.in_channels, spec.filters, spec.strides, spec.groups, min(spec.stage, 1)] += 1
        side = -(-side // spec.strides)
    table = Table(title=f"{arguments.variant}, {arguments.size} px, batch {arguments.batch}: ms (GMAC/s)")
    for heading in ("block", "times", "3x3 forward", *PARTS[1:]):
        table.add_column(heading, justify="left" if heading == "block" else "right")
    for form in FORMS:
        for part in ("forward", "both"):
            table.add_column(f"{form}, {part}", justify="right")
    rows = []
    for (side, channels, filters, strides, groups, stage), times in places.items():
        spec = argparse.Namespace(in_channels=channels, filters=filters, strides=strides, groups=groups, stage=stage)
        images = tf.nn.relu(tf.random.stateless_normal((arguments.batch, side, side, channels), (0, 2)))
        small = -(-side // strides)
        outputs = tf.random.stateless_normal((arguments.batch, small, small, filters), (0, 3))
        seconds = take_turns(convolution_steps(spec, images, outputs), arguments.rounds)
        seconds |= take_turns(block_steps(spec, images, outputs), arguments.rounds)
        macs = arguments.batch * small**2 * 9 * channels // groups * filters
        name = f"{side} px, {channels} to {filters}" + (f", {groups} groups" if groups > 1 else "")
        rows.append({"block": name, "strides": strides, "times": times, "macs_3x3": macs, "seconds": seconds})
        cells = [
            f"{seconds[part] * 1e3:.1f} ({macs / seconds[part] / 1e9:.0f})" if part in seconds else "-"
            for part in PARTS
        ]
        wholes = [f"{seconds[f'{form}, {part}'] * 1e3:.1f}" for form in FORMS for part in ("forward", "both")]
        table.add_row(name, str(times), *cells, *wholes)
    total = {part: sum(row["times"] * row["seconds"].get(part, 0) for row in rows) for part in rows[-1]["seconds"]}
    table.add_row(
        "all",
        str(sum(places.values())),
        *(
            f"{seconds * 1e3:.0f}"
            for seconds in (
                total[part] for part in (*PARTS, *(f"{form}, {part}" for form in FORMS for part in ("forward", "both")))
            )
        ),
    )
    Console(width=max(Console().width, 140)).print(table)
    if arguments.out:
        record = {**machine(), "variant": arguments.variant, "size": arguments.size, "batch": arguments.batch}
        arguments.out.write_text(json.dumps({**record, "blocks": rows, "all": total}, indent=1) + "\n")


if __name__ == "__main__":
    main()
