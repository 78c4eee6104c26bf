"""What a person sees while a network trains."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import keras
from rich.console import Console

from repvgg.base.progress import Work, working
from repvgg.base.words import counted
from repvgg.pipeline import DataShard
from repvgg.training.inputs import Inputs

Logs = dict[str, Any]


class ProgressBar(keras.callbacks.Callback):
    """Moves one bar on for the whole run; its state is the running loss and the last validation accuracy.

    Args:
        work: counts steps.
        every: steps between two looks at the loss.
    """

    def __init__(self, work: Work, *, every: int = 1) -> None:
        super().__init__()
        self._work = work
        self._every = every
        self._accuracy = math.nan
        work.say("compiling")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._work.advance()
        if batch % self._every == 0 and logs is not None:
            shown = f", validation {self._accuracy:.1%}" if math.isfinite(self._accuracy) else ""
            self._work.say(f"loss {float(logs['loss']):.3f}{shown}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        for name, value in (logs or {}).items():
            if name in ("val_accuracy", "val_main_accuracy"):
                self._accuracy = float(value)
        self._work.heard()


def epoch_line(row: dict[str, float]) -> str:
    """An epoch's figures, as they are printed."""
    seconds = f"  {row['seconds']:.0f} s" if "seconds" in row else ""
    return (
        f"epoch {int(row['epoch']):3d}  loss {row['loss']:.4f}  accuracy {row['accuracy']:.2%}  "
        f"validation {row['val_accuracy']:.2%}{seconds}"
    )


@contextmanager
def scan_bar(console: Console) -> Iterator[Callable[[int], Callable[[int], None]]]:
    """A bar for looking through the images; gives what starts it once their number is known."""
    with ExitStack() as stack:

        def start(count: int) -> Callable[[int], None]:
            return stack.enter_context(working(console, "looking through the images", count)).advance

        yield start


def tell_inputs(console: Console, inputs: Inputs) -> None:
    """How many images and classes there are, and which files are left out."""
    names = inputs.training.class_names
    console.print(
        f"{counted(len(inputs.training), 'image')} to train on, {len(inputs.validation)} to measure with, "
        f"{len(names)} classes: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}",
        soft_wrap=True,
    )
    if inputs.broken:
        console.print(f"{counted(len(inputs.broken), 'file is', 'files are')} left out:", style="yellow")
        for path, reason in inputs.broken[:20]:
            console.print(f"  {path}: {reason}", soft_wrap=True, markup=False)
        if len(inputs.broken) > 20:
            console.print("  ... the rest is in data.json")


def devices_line(devices: int, shard: DataShard) -> str:
    """What a step runs on."""
    if shard.count > 1:
        return f"process {shard.index + 1} of {shard.count}, {devices} devices in all"
    return counted(devices, "device")
