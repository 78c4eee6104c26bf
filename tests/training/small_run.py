"""A run that is small enough to be killed and repeated: 5 blocks, 36 images, 4 epochs of 4 steps.

    python small_run.py DATA OUTPUT [--resume] [--command-line] [--cluster=COORDINATOR,PROCESSES,ID] [name=value ...]

Prints 'step N' after each step. Names are arguments of `repvgg.train`, values are JSON. With --command-line it prints,
and stops, as the command does.
"""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")
EPOCHS, BATCH = 4, 8


def make_images(folder: Path, per_class: int = 12) -> Path:
    """Noisy pictures whose strongest colour is the class, split into train/ and val/."""
    generator = np.random.default_rng(0)
    for part, count in (("train", per_class), ("val", 4)):
        for channel, name in zip((2, 1, 0), CLASSES, strict=True):
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 160, (40 + index, 44, 3))
                pixels[..., channel] += 90
                Image.fromarray(pixels.astype(np.uint8)).save(folder / part / name / f"{index}.jpg", quality=95)
    return folder


def small_settings(**changes: Any) -> dict[str, Any]:
    import repvgg

    recipe = repvgg.Recipe(
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=1.6,
        size=32,
        augmentation=repvgg.RECIPES["quick"].augmentation,
    )
    return {"recipe": recipe, "save_steps": 1, "tensorboard": False, "report": False, **changes}


def small_model() -> Any:
    import keras

    import repvgg

    keras.utils.set_random_seed(3)
    return repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=3, input_shape=(32, 32, 3), name="small")


def main() -> None:
    data, output, *rest = sys.argv[1:]
    options = dict(item.split("=") for item in rest if "=" in item)
    cluster = options.pop("--cluster", None)
    changes = {name: json.loads(value) for name, value in options.items()}

    from repvgg.training import callbacks
    from repvgg.training.run import train

    class Telling(callbacks.StateKeeper):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            super().on_train_batch_end(batch, logs)
            print(f"step {self.progress.step}", flush=True)

    import repvgg.training.fitting as room
    from repvgg.base.errors import InterruptedTrainingError
    from repvgg.base.stopping import listening
    from repvgg.training.cluster import Cluster
    from repvgg.training.processes import joined

    room.StateKeeper = Telling  # type: ignore[misc]
    with ExitStack() as stack:
        if cluster is not None:
            address, count, number = cluster.split(",")
            stack.enter_context(joined(Cluster(address, int(count), int(number))))
        if "--command-line" in rest:
            from rich.console import Console

            changes["out"] = Console(width=200)
            stack.enter_context(listening())
        try:
            train(data, small_model(), output=output, resume="--resume" in rest, **small_settings(**changes))
        except InterruptedTrainingError as error:
            if "--command-line" not in rest:
                raise
            print(error)
            sys.exit(error.exit_status)


if __name__ == "__main__":
    main()
