"""Several processes or devices as one: Keras's distribution on JAX, replicas of one machine's GPUs on TensorFlow."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from repvgg.errors import InputError
from repvgg.pipeline import Share
from repvgg.training.cluster import Cluster


def connect(cluster: Cluster) -> None:
    """Joins the other processes; returns when all are there. Called before anything else touches the devices.

    Raises:
        InputError: on a backend other than JAX.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise InputError(
            f"Several processes train together on JAX, and the Keras backend is '{keras.backend.backend()}'. "
            "Set KERAS_BACKEND=jax on every host."
        )
    import jax

    if os.environ.get("JAX_PLATFORMS", "") in ("", "cpu"):
        # Without it processes on CPUs cannot exchange anything; accelerators do not look at it.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(cluster.coordinator, cluster.num_processes, cluster.process_id)


def make_deterministic() -> None:
    """Asks the backend for operations that give the same bits each time, on GPUs as well; CPUs do without this."""
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    elif backend == "torch":
        import torch

        torch.use_deterministic_algorithms(True)
    else:
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_gpu_deterministic_ops=true".strip()


def this_share() -> Share:
    """This process's share of each global batch."""
    import keras

    if keras.backend.backend() != "jax":
        return Share()
    import jax

    return Share(jax.process_index(), jax.process_count())


@contextmanager
def all_devices() -> Iterator[int]:
    """Inside, what is built is trained on every device there is, each with its part of the batch; gives their number.

    On JAX these are the devices of all processes, on TensorFlow the GPUs of this machine, on PyTorch the one
    device that Keras uses.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        yield from _jax_devices(keras)
    elif backend == "tensorflow":
        yield from _tensorflow_devices()
    else:
        yield 1


def placed(model: Any) -> Any:
    """`model` on all devices, called within `all_devices`: a copy if it was made outside and there are several of them.

    Variables stay where they were made.
    """
    import keras

    if keras.distribution.distribution() is None and not _in_strategy(keras):
        return model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _in_strategy(keras: Any) -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def _jax_devices(keras: Any) -> Iterator[int]:
    import jax

    count = jax.device_count()
    if count == 1:
        yield 1
        return
    before = keras.distribution.distribution()
    # Each process reads its own share, so Keras must not cut it once more.
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    try:
        yield count
    finally:
        keras.distribution.set_distribution(before)


def _tensorflow_devices() -> Iterator[int]:
    import tensorflow as tf

    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) < 2:
        yield 1
        return
    strategy = tf.distribute.MirroredStrategy()
    with strategy.scope():
        yield int(strategy.num_replicas_in_sync)
