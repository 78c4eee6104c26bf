"""What happens between the steps of `fit`: keeping the state, keeping the best model, watching the loss."""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from repvgg.base import stopping
from repvgg.base.errors import InterruptedTrainingError, TrainingDivergedError
from repvgg.training.compiled import ACCURACY, CROSS_ENTROPY
from repvgg.training.state import Progress, read_variables, save_state, write_variables

Logs = dict[str, Any]


class StateKeeper(keras.callbacks.Callback):
    """Saves the whole state every so many steps and at the end of each epoch, and puts it back when a run goes on.

    A loss that is not finite ends the run before such a state is saved.

    Args:
        folder: where checkpoints go; None in a process that writes none.
        progress: where the run is; kept current.
        save_steps: steps between checkpoints within an epoch.
        on_epoch: called with the row of figures of each epoch, before that epoch's checkpoint is written.
        tell: is told what happens after a first Ctrl-C.
        asked_to_stop: where several processes train together: called with each step, it tells whether all of them stop
            after this one. A SIGTERM to any of them is its business then.
    """

    def __init__(
        self,
        folder: Path | None,
        progress: Progress,
        *,
        steps_per_epoch: int,
        save_steps: int,
        on_epoch: Callable[[dict[str, float]], None],
        tell: Callable[[str], None],
        asked_to_stop: Callable[[int], bool] | None = None,
    ) -> None:
        super().__init__()
        self.folder = folder
        self.asked_to_stop = asked_to_stop
        self.progress = progress
        self.steps_per_epoch = steps_per_epoch
        self.save_steps = save_steps
        self.on_epoch = on_epoch
        self.tell = tell
        self._metrics: Mapping[str, np.ndarray] = {}
        self._saved = progress.step
        self._measuring = False
        self._stop: int | None = None

    def restore(self, trainer: Any, tensors: Mapping[str, np.ndarray]) -> None:
        """Puts a saved state into a model that is compiled as the saved one was."""
        parts = _parts(trainer)
        write_variables(
            {**parts["model"], **parts["optimizer"]},
            {name: array for name, array in tensors.items() if not name.startswith("metric/")},
        )
        # `fit` resets the metrics when it starts an epoch, so they are put back after that.
        self._metrics = {name: array for name, array in tensors.items() if name.startswith("metric/")}

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        if self._metrics and self.progress.step % self.steps_per_epoch:
            write_variables(_parts(self.model)["metric"], self._metrics)
        self._metrics = {}

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        self.progress.step += 1
        loss = float((logs or {})["loss"])
        if not math.isfinite(loss):
            raise TrainingDivergedError(self.progress.step, loss)
        if self.asked_to_stop is not None and self.asked_to_stop(self.progress.step):
            self._stop = signal.SIGTERM
        within = self.progress.step % self.steps_per_epoch
        if within == 0:
            # The validation comes first; its figures belong to this state.
            return
        if self._stop is not None or within % self.save_steps == 0:
            self.save()
        self._stop_if_asked()

    def on_test_begin(self, logs: Logs | None = None) -> None:  # noqa: ARG002
        self._measuring = True

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self._measuring = False
        row = {"epoch": float(epoch + 1)}
        # The validation loss also averages over what fills up the batches; the cross entropy does not.
        row |= {_plain_name(name): float(value) for name, value in (logs or {}).items() if name != "val_loss"}
        self.progress.history.append(row)
        self.on_epoch(row)
        self.save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stop is not None:
            raise InterruptedTrainingError(self.progress.step, self._stop)

    def save(self) -> None:
        """Writes a checkpoint of this moment, unless the weights are broken already."""
        if self.folder is None:
            return
        parts = _parts(self.model)
        tensors = read_variables({**parts["model"], **parts["optimizer"], **parts["metric"]})
        for name, array in tensors.items():
            if name.startswith("model/") and array.dtype.kind == "f" and not np.isfinite(array).all():
                raise TrainingDivergedError(self.progress.step, math.nan)
        save_state(self.folder, tensors, self.progress)
        self._saved = self.progress.step

    @contextmanager
    def stopping_on_signals(self) -> Iterator[None]:
        """Inside, Ctrl-C and SIGTERM let the step end, save and then stop; a second one stops at once."""
        # Where several processes train together, JAX itself waits for a SIGTERM.
        numbers = stopping.NUMBERS if self.asked_to_stop is None else (signal.SIGINT,)
        with stopping.asked_first(self._ask, numbers):
            yield

    def _ask(self, number: int) -> bool:
        """Has the run stop; False if nothing would be lost if it ended now."""
        if self.asked_to_stop is not None:
            signal.raise_signal(signal.SIGTERM)
            return True
        self._stop = number
        if self.progress.step == self._saved:
            return False
        if self._measuring:
            self.tell(
                f"Stopping when this epoch is measured and saved. Ctrl-C again stops at once, and --resume then goes "
                f"on from step {self._saved}."
            )
        else:
            self.tell("Stopping after this step, when its state is saved. Ctrl-C again stops at once.")
        return True


class BestKeeper(keras.callbacks.Callback):
    """Calls `save` whenever the validation accuracy is the best so far, at the end of the validation.

    Not at the end of the epoch: with averaged weights, they are in place only while the validation runs.
    """

    def __init__(self, progress: Progress, steps_per_epoch: int, save: Callable[[], None]) -> None:
        super().__init__()
        self.progress = progress
        self.steps_per_epoch = steps_per_epoch
        self.save = save

    def on_test_end(self, logs: Logs | None = None) -> None:
        values = {_plain_name(name): float(value) for name, value in (logs or {}).items()}
        accuracy = values[ACCURACY]
        if accuracy > self.progress.best_accuracy:
            self.progress.best_accuracy = accuracy
            self.progress.best_epoch = self.progress.step // self.steps_per_epoch
            # Looking at it brings the weights up to date where the backend keeps them elsewhere (JAX).
            _ = self.model
            self.save()


class RateLogger(keras.callbacks.Callback):
    """Adds the learning rate to an epoch's logs."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:  # noqa: ARG002
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


def _plain_name(name: str) -> str:
    """Without the name of the main output, which the metrics of a network with several outputs carry."""
    for metric in (ACCURACY, CROSS_ENTROPY):
        if name in (f"main_{metric}", f"val_main_{metric}"):
            return name.replace("main_", "", 1)
    return name


def _parts(trainer: Any) -> dict[str, dict[str, Any]]:
    """Every variable of a compiled model by a name of its own."""
    metrics = [variable for metric in trainer.metrics for variable in metric.variables]
    groups = {
        "model": [*trainer.trainable_variables, *trainer.non_trainable_variables],
        "optimizer": list(trainer.optimizer.variables),
        "metric": metrics,
    }
    return {
        group: {f"{group}/{index:05d}/{variable.path}": variable for index, variable in enumerate(variables)}
        for group, variables in groups.items()
    }
