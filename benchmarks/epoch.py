"""Time of an epoch of `repvgg train` beside its training steps alone: what reading, saving and the rest cost.

    python benchmarks/epoch.py                                  # 640 images are made, RepVGG-A0, 224 px, batch 32
    python benchmarks/epoch.py flowers --recipe paper --out epoch.json

`repvgg.train` itself runs, with everything that it writes. A clock among its callbacks takes the time of each epoch and
of validation in it; the first epoch, which traces and warms up, is not counted. Before and after, the same compiled
step runs on one batch that is in memory already; last, the input pipeline runs for one epoch with nothing behind it. If
reading keeps up, the training part of an epoch takes as long as its steps alone. The machine must have nothing else to
do.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from repvgg.training.compiled import TrainingModel
from repvgg.training.run import train
from step_timing import UNCOUNTED, save

CLASSES, WIDTH, HEIGHT = 10, 500, 375
"""Made images have about the size of ImageNet's."""


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch: of the whole, of its training steps with their reading, and of validation."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, list[float]] = {"whole epoch": [], "training part": [], "validation part": []}
        self.start = self.trained = self.test_start = self.test_seconds = 0.0

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.start, self.test_seconds = time.perf_counter(), 0.0

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        self.trained = time.perf_counter()

    def on_test_begin(self, *_: Any, **__: Any) -> None:
        self.test_start = time.perf_counter()

    def on_test_end(self, *_: Any, **__: Any) -> None:
        self.test_seconds += time.perf_counter() - self.test_start

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        times = (time.perf_counter() - self.start, self.trained - self.start, self.test_seconds)
        for values, value in zip(self.seconds.values(), times, strict=True):
            values.append(value)


class Measured:
    """`fit` with the clock in it, and what can only be measured beside it."""

    def __init__(self, steps: int) -> None:
        self.clock = Clock()
        self.steps = steps
        self.step_seconds: list[float] = []
        self.reading_seconds = 0.0
        self.per_epoch = 0

    def fit(self, trainer: Any, batches: Any, *, steps_per_epoch: int, callbacks: Any, **options: Any) -> Any:
        self.per_epoch = steps_per_epoch
        images, targets = next(iter(batches))
        # Half of the steps before and half after, so that a machine that slows down is seen in their spread.
        self.run_steps(trainer, images, targets, self.steps - self.steps // 2)
        # Last in the list: an epoch ends for it when all others have written their files.
        callbacks = [*callbacks, self.clock]
        history = keras.Model.fit(trainer, batches, steps_per_epoch=steps_per_epoch, callbacks=callbacks, **options)
        self.run_steps(trainer, images, targets, self.steps // 2)
        start = time.perf_counter()
        for _ in itertools.islice(batches, steps_per_epoch):
            pass
        self.reading_seconds = time.perf_counter() - start
        return history

    def run_steps(self, trainer: Any, images: Any, targets: Any, count: int) -> None:
        for number in range(count + UNCOUNTED):
            start = time.perf_counter()
            loss = trainer.train_on_batch(images, targets)
            if number >= UNCOUNTED:
                self.step_seconds.append(time.perf_counter() - start)
            if not np.isfinite(np.asarray(loss)).all():
                raise SystemExit(f"The loss is {loss} at step {number}.")


def make_images(root: Path, count: int) -> None:
    """JPEG files in class folders: smooth noise, which is about as costly to decode as a photograph."""
    generator = np.random.default_rng(0)
    for index in range(count):
        path = root / f"class{index % CLASSES}" / f"{index:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (HEIGHT // 6, WIDTH // 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(path, quality=92)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="as for `repvgg train`; images are made if not given")
    parser.add_argument("--images", type=int, default=640, help="how many are made")
    parser.add_argument("--model", default="RepVGG-A0")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4, help="the first of which is not counted")
    parser.add_argument("--steps", type=int, default=12, help="counted steps alone")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs must be at least 2: the first is not counted")

    out = Console()
    load = os.getloadavg()[0]
    if load > 0.5:
        out.print(f"The machine is busy (load {load:.1f}); these times will not be worth keeping.", style="bold red")
    measured = Measured(arguments.steps)

    def fit(trainer: Any, batches: Any, **options: Any) -> Any:
        return measured.fit(trainer, batches, **options)

    TrainingModel.fit = fit
    with tempfile.TemporaryDirectory() as folder:
        data = arguments.data
        if data is None:
            data = Path(folder) / "images"
            make_images(data, arguments.images)
        result = train(
            data,
            arguments.model,
            recipe=arguments.recipe,
            output=Path(folder) / "run",
            epochs=arguments.epochs,
            # A warm-up is counted in epochs, of which there are few here.
            warmup_epochs=0,
            size=arguments.size,
            batch_size=arguments.batch,
            out=out,
        )
    images = measured.per_epoch * arguments.batch
    step = statistics.median(measured.step_seconds)
    alone = step * measured.per_epoch
    seconds = {name: values[1:] for name, values in measured.clock.seconds.items()}

    table = Table("", "seconds", "spread", "images/s", title=f"An epoch of {measured.per_epoch} steps, {images} images")
    spread = f"{min(measured.step_seconds) * 1e3:.0f} to {max(measured.step_seconds) * 1e3:.0f} ms a step"
    table.add_row("its steps alone", f"{alone:.2f}", spread, f"{images / alone:.1f}")
    table.add_row(
        "its reading alone", f"{measured.reading_seconds:.2f}", "", f"{images / measured.reading_seconds:.1f}"
    )
    for name, values in seconds.items():
        middle = statistics.median(values)
        rate = f"{images / middle:.1f}" if name == "training part" else ""
        table.add_row(name, f"{middle:.2f}", f"{min(values):.2f} to {max(values):.2f}", rate)
    out.print(table)
    ratio = statistics.median(seconds["training part"]) / alone
    out.print(
        f"The training part takes {ratio:.3f} times as long as its steps alone ({len(result.history) - 1} epochs)."
    )
    if arguments.out:
        save(
            arguments.out,
            {**seconds, "step alone": measured.step_seconds, "reading alone": [measured.reading_seconds]},
            ratio,
            model=arguments.model,
            recipe=arguments.recipe,
            size=arguments.size,
            batch=arguments.batch,
            steps_per_epoch=measured.per_epoch,
            load_before=load,
        )


if __name__ == "__main__":
    main()
