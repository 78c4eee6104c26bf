"""Several devices as one: Keras's distribution on JAX, replicas of one machine's GPUs on TensorFlow."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from repvgg.base.errors import InterruptedTrainingError
from repvgg.pipeline import DataShard
from repvgg.training.processes import noticing_losses, shutdown


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


def this_shard() -> DataShard:
    """This process's shard of each global batch."""
    import keras

    if keras.backend.backend() != "jax":
        return DataShard()
    import jax

    return DataShard(jax.process_index(), jax.process_count())


@contextmanager
def all_devices(names: Sequence[str] | None = None) -> Iterator[int]:
    """Inside, what is built is trained on every device there is, each with its part of the batch; gives their number.

    On JAX these are the devices of all processes, on TensorFlow the GPUs of this machine, on PyTorch the one
    device that Keras uses.

    Args:
        names: TensorFlow's names of other devices than its GPUs, such as "CPU:0".
    """
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        yield from _jax_devices(keras)
    elif backend == "tensorflow":
        yield from _tensorflow_devices(names)
    else:
        yield 1


def placed(model: Any) -> Any:
    """`model` on all devices, called within `all_devices`: a copy if it was made outside and there are several of them.

    Variables stay where they were made.
    """
    import keras

    if keras.distribution.distribution() is None and replicas() == 1:
        return model
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def replicas() -> int:
    """How many copies of the network TensorFlow trains at once; elsewhere there is one, on however many devices."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def _jax_devices(keras: Any) -> Iterator[int]:
    import jax

    count = jax.device_count()
    # Each process reads its own shard, so Keras must not cut it once more.
    scope = keras.distribution.DataParallel(auto_shard_dataset=False).scope() if count > 1 else nullcontext()
    with noticing_losses():
        try:
            with scope:
                yield count
        except InterruptedTrainingError:
            # All stop at the same step. Whoever left before the last one has saved would end that one in the midst.
            shutdown()
            raise
        # All have come to the end. What is left to do needs one process on one device, and may take its time.
        shutdown()


def _tensorflow_devices(names: Sequence[str] | None) -> Iterator[int]:
    import tensorflow as tf

    if names is None:
        names = [device.name for device in tf.config.list_logical_devices("GPU")]
    if len(names) < 2:
        yield 1
        return
    strategy = tf.distribute.MirroredStrategy(names)
    with strategy.scope():
        yield int(strategy.num_replicas_in_sync)
