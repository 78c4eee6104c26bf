"""A short training run with a progress bar: enough for the digits."""

from typing import Any

import keras
from rich.console import Console

from repvgg.base.progress import working
from repvgg.demo.digits import Digits, ShiftedBatches
from repvgg.training.compiled import compiles_fast
from repvgg.training.progress import ProgressBar, epoch_line
from repvgg.training.speed import prepare_machine

BATCH_SIZE = 64
LEARNING_RATE = 0.05
WEIGHT_DECAY = 1e-4


def train(model: Any, digits: Digits, *, epochs: int, seed: int, out: Console) -> dict[str, list[float]]:
    """Trains `model` in place: SGD with momentum 0.9 and a cosine from 0.05 to 0.

    Returns:
        Loss and accuracy of each epoch, of the training and of the test images.
    """
    prepare_machine()
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
    # Without a terminal there is no bar to look at, and a line an epoch says how it goes.
    lines = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: out.print(epoch_line({"epoch": epoch + 1, **logs}))
    )
    with working(out, "training", steps, unit="steps") as work:
        history = trainer.fit(
            batches,
            epochs=epochs,
            validation_data=(digits.test_images, digits.test_labels),
            verbose=0,
            callbacks=[ProgressBar(work), *([] if out.is_terminal else [lines])],
        )
    return dict(history.history)
