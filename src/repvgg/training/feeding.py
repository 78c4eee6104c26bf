"""Batches as `fit` wants them: a target for each output, and whole batches where several devices share them."""

from typing import Any

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.pipeline import DataShard, evaluation_batches
from repvgg.training.inputs import Source


def with_outputs(batches: Any, names: list[str]) -> Any:
    """The targets once for each output of a network with auxiliary ones; unchanged for others."""
    if not names:
        return batches
    return batches.map(lambda images, targets: (images, dict.fromkeys(names, targets)))


def read_by(batches: Any, workers: int | None) -> Any:
    """The same batches, read and prepared by so many threads; by as many as TensorFlow chooses if None."""
    if workers is None:
        return batches
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = workers
    return batches.with_options(options)


def validation_batches(
    source: Source, preprocessing: Preprocessing, names: list[str], *, batch_size: int, shard: DataShard, devices: int
) -> Any:
    """Images, one-hot targets and weights (b,) of the validation images.

    Devices that share a batch need whole ones, and as many of them on every process. There the last batches are filled
    up with black images of weight 0, which no weighted metric counts.

    Args:
        batch_size: images of a batch, over all processes and devices.

    Raises:
        InputError: if the devices cannot have equal parts of a batch.
    """
    import tensorflow as tf

    if batch_size % devices:
        raise InputError(f"`batch_size` (={batch_size}) must be a multiple of the number of devices (={devices}).")

    classes = len(source.class_names)
    local = shard.local_batch(batch_size)
    batches = evaluation_batches(source, preprocessing, batch_size=batch_size, shard=shard)

    def weighted(images: Any, labels: Any) -> tuple[Any, Any, Any]:
        targets, weights = tf.one_hot(labels, classes), tf.ones(tf.shape(labels), tf.float32)
        if devices > 1:
            missing = local - tf.shape(labels)[0]
            images, targets, weights = (
                tf.ensure_shape(
                    tf.pad(part, [[0, missing]] + [[0, 0]] * (len(part.shape) - 1)), (local, *part.shape[1:])
                )
                for part in (images, targets, weights)
            )
        return images, dict.fromkeys(names, targets) if names else targets, weights

    with tf.device("CPU:0"):
        batches = batches.map(weighted)
        if devices > 1:
            batches = batches.concatenate(_empty(batches).repeat(_missing(len(source), batch_size, shard)))
        return batches


def _missing(images: int, batch_size: int, shard: DataShard) -> int:
    """How many batches fewer this process has than the first one."""
    rest = images % batch_size
    begun = rest > shard.index * shard.local_batch(batch_size)
    return int(rest > 0) - int(begun)


def _empty(batches: Any) -> Any:
    import tensorflow as tf

    zeros = tf.nest.map_structure(lambda spec: tf.zeros(spec.shape, spec.dtype), batches.element_spec)
    return tf.data.Dataset.from_tensors(zeros)
