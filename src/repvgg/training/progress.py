"""What a person sees while a network trains."""

import math
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

Logs = dict[str, Any]


class _StepsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "")


def progress_bar(out: Console, label: str) -> Progress:
    """A bar with the time left; `state` is a field of its tasks."""
    return Progress(
        TextColumn(f"[bold]{label}"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[state]}"),
        _StepsPerSecond(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=out,
        disable=not out.is_terminal,
    )


class ProgressBar(keras.callbacks.Callback):
    """One bar for the whole run, whose state is the running loss and the last validation accuracy."""

    def __init__(self, progress: Progress, *, steps: int, done: int = 0, every: int = 1) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("training", total=steps, completed=done, state="compiling")
        self._every = every
        self._accuracy = math.nan

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._progress.advance(self._task)
        if batch % self._every == 0 and logs is not None:
            shown = f", validation {self._accuracy:.1%}" if math.isfinite(self._accuracy) else ""
            self._progress.update(self._task, state=f"loss {float(logs['loss']):.3f}{shown}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        for name, value in (logs or {}).items():
            if name in ("val_accuracy", "val_main_accuracy"):
                self._accuracy = float(value)
