"""Time of a training step: this package's blocks beside the same network from stock Keras layers.

    python benchmarks/training_step.py                                       # RepVGG-A0, 224 px, batch 32
    python benchmarks/training_step.py --variant RepVGG-B1g4 --size 64       # grouped convolutions

Both are built in one process and take turns, A B A B, so that a slow minute of the machine hits both. The first steps,
which trace and warm up, are not counted. Prints medians, spread and the ratio of the medians; `--out` keeps them.
"""

import argparse
import os
from functools import partial
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What importing repvgg does, where nothing has imported TensorFlow before.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np

import repvgg
from step_timing import compiled, report, save, take_turns
from stock_keras import stock_training_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    variant = repvgg.get_variant(arguments.variant)
    shape = (arguments.size, arguments.size, 3)
    models = {
        "repvgg": compiled(repvgg.create_model(variant.name, arguments.classes, shape)),
        "stock Keras layers": compiled(stock_training_model(variant.architecture, arguments.classes, arguments.size)),
    }
    generator = np.random.default_rng(0)
    images = generator.standard_normal((arguments.batch, *shape), dtype=np.float32)
    labels = generator.integers(0, arguments.classes, arguments.batch)

    steps = {name: partial(model.train_on_batch, images, labels) for name, model in models.items()}
    seconds, _ = take_turns(steps, arguments.steps)
    title = f"{variant.name}, {arguments.size} px, batch {arguments.batch}, {keras.backend.backend()}"
    ratio = report(title, seconds, arguments.batch)
    if arguments.out:
        save(arguments.out, seconds, ratio, variant=variant.name, size=arguments.size, batch=arguments.batch)


if __name__ == "__main__":
    main()
