"""Time of a training step: this package on TensorFlow beside the official network in PyTorch, eager, NCHW.

    python benchmarks/training_step_torch.py --steps 12 --out benchmarks/results/training_step_torch_a0_224.json

Both are built in one process, get the same weights, images and labels, and the same cores and threads, and take turns,
A B A B. SGD with momentum 0.9, cross entropy, no weight decay. Before anything is timed, the script checks that both
give the same logits in inference mode, with random statistics, and after it that their first losses in training mode
were the same. The first steps, which trace and warm up, are not counted.

The machine must have nothing else to do: PyTorch's threads wait for each other at every operation, and fall behind by
factors where another process takes one core away.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What importing repvgg does, where nothing has imported TensorFlow before.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
import torch
from rich.console import Console

import repvgg
from official_torch import Network
from step_timing import compiled, report, save, take_turns

LIMIT = 1e-4
"""Relative difference that is accepted: some 800 roundings of float32."""


def use_threads(count: int) -> None:
    """Keeps both to as many cores (where the system lets a process choose them) and threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    tf.config.threading.set_intra_op_parallelism_threads(count)
    tf.config.threading.set_inter_op_parallelism_threads(count)
    torch.set_num_threads(count)


def randomize(model: Any, generator: np.random.Generator) -> None:
    """Statistics as training leaves them; fresh ones would hide most differences."""
    for variable in model.weights:
        name = variable.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance"):
            variable.assign(generator.uniform(0.7, 1.5, variable.shape))
        elif name in ("beta", "moving_mean"):
            variable.assign(generator.normal(0, 0.2, variable.shape))


def same_weights(model: Any, architecture: repvgg.Architecture, classes: int) -> Network:
    """The PyTorch network with the Keras model's weights, by way of a checkpoint under the official names."""
    network = Network(architecture, classes)
    with tempfile.TemporaryDirectory() as folder:
        path = repvgg.save_checkpoint(model, Path(folder) / "weights.pth", dialect="official")
        found = network.load_state_dict(torch.load(path, weights_only=True), strict=False)
    unfilled = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if unfilled or found.unexpected_keys:
        raise SystemExit(f"The weights do not fit: missing {unfilled}, left over {found.unexpected_keys}.")
    return network


def check(what: str, ours: Any, theirs: Any) -> None:
    error = float(np.abs(np.subtract(ours, theirs)).max() / np.abs(ours).max())
    Console().print(f"{what}: relative difference {error:.1e} (limit {LIMIT:.0e})")
    if not error <= LIMIT:
        raise SystemExit("These are not the same network, so their times mean nothing beside each other.")


def torch_step(network: Network, images: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    batch, targets = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(labels)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(batch), targets)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0", help="one without channel attention")
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20, help="counted steps of each")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    arguments = parser.parse_args()

    variant = repvgg.get_variant(arguments.variant)
    if variant.architecture.squeeze_excite is not None:
        raise SystemExit(f"{variant.name} has channel attention, which the PyTorch network here leaves out.")
    load = os.getloadavg()[0]
    if load > 0.5:
        Console().print(
            f"The machine is busy (load {load:.1f}); these times will not be worth keeping.", style="bold red"
        )
    use_threads(arguments.threads)
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    shape = (arguments.size, arguments.size, 3)
    images = generator.standard_normal((arguments.batch, *shape), dtype=np.float32)
    labels = generator.integers(0, arguments.classes, arguments.batch)

    model = repvgg.create_model(variant.name, arguments.classes, shape)
    randomize(model, generator)
    network = same_weights(model, variant.architecture, arguments.classes)
    few = images[:4]
    with torch.no_grad():
        expected = network.eval()(torch.from_numpy(few.transpose(0, 3, 1, 2).copy())).numpy()
    check("logits in inference mode", model(few, training=False).numpy(), expected)

    names = ("repvgg on TensorFlow", "PyTorch")
    steps = {
        names[0]: partial(compiled(model).train_on_batch, images, labels),
        names[1]: torch_step(network.train(), images, labels),
    }
    seconds, first = take_turns(steps, arguments.steps)
    check("first loss in training mode", first[names[0]], first[names[1]])
    title = f"{variant.name}, {arguments.size} px, batch {arguments.batch}, {arguments.threads} threads"
    ratio = report(title, seconds, arguments.batch)
    if arguments.out:
        save(
            arguments.out,
            seconds,
            ratio,
            variant=variant.name,
            size=arguments.size,
            batch=arguments.batch,
            threads=arguments.threads,
            load_before=load,
            torch=torch.__version__,
            tensorflow=tf.__version__,
        )


if __name__ == "__main__":
    main()
