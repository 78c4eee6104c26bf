"""A short training run with a progress bar: enough for the digits."""

from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from repvgg.demo.digits import Digits, ShiftedBatches

BATCH_SIZE = 64
LEARNING_RATE = 0.05
WEIGHT_DECAY = 1e-4


def train(model: Any, digits: Digits, *, epochs: int, seed: int, out: Console) -> dict[str, list[float]]:
    """Trains `model` in place: SGD with momentum 0.9 and a cosine from 0.05 to 0.

    Returns:
        Loss and accuracy of each epoch, of the training and of the test images.
    """
    batches = ShiftedBatches(digits.train_images, digits.train_labels, BATCH_SIZE, seed)
    steps = epochs * len(batches)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    optimizer = keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, weight_decay=WEIGHT_DECAY)
    # Scales and shifts are not decayed, as in the paper's recipe.
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    # The same layers under another model: the caller's stays uncompiled, and its file free of the optimizer's state.
    trainer = keras.Model(model.input, model.output)
    trainer.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=compiles_fast(),
    )
    with Progress(
        TextColumn("[bold]training"),
        BarColumn(bar_width=20),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=out,
    ) as progress:
        history = trainer.fit(
            batches,
            epochs=epochs,
            validation_data=(digits.test_images, digits.test_labels),
            verbose=0,
            callbacks=[_ProgressBar(progress, steps)],
        )
    return dict(history.history)


def compiles_fast() -> bool:
    """Whether XLA pays: on accelerators; on a CPU TensorFlow's own kernels are two times faster (JAX has no others)."""
    if keras.backend.backend() != "tensorflow":
        return bool(keras.backend.backend() == "jax")
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class _ProgressBar(keras.callbacks.Callback):
    def __init__(self, progress: Progress, steps: int) -> None:
        super().__init__()
        self._progress = progress
        self._task = progress.add_task("training", total=steps, state="tracing")

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        self._progress.advance(self._task)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        values = logs or {}
        state = f"loss {values['loss']:.3f}, test {values['val_accuracy']:.1%}"
        self._progress.update(self._task, state=state)
