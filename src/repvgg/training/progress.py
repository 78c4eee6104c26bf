"""What a person sees while a network trains."""

import math
from typing import Any

import keras

from repvgg.base.progress import Work

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
