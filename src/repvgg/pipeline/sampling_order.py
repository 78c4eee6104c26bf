"""The sampling order of training: which image comes when, and which shard of it is whose."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from repvgg.base.errors import InputError

ORDER, NUMBERS, BETA, NOISE, SHARDS, WINDOWS = range(6)
"""Independent streams of random numbers that one seed gives."""

STREAMS = 8
MAX_SEED = 2**31


@dataclass(frozen=True)
class DataShard:
    """The part of each batch that one process of several gets: number `index` of `count`, from 0.

    Raises:
        InputError: if there is no such shard.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise InputError(f"A shard's `index` (={self.index}) must be at least 0 and below `count` (={self.count}).")

    def local_batch(self, batch_size: int) -> int:
        """Images of each batch that are this process's.

        Raises:
            InputError: if the batch cannot be divided.
        """
        if batch_size < 1 or batch_size % self.count:
            raise InputError(
                f"`batch_size` (={batch_size}) must be a multiple of the number of processes (={self.count})."
            )
        return batch_size // self.count


@dataclass(frozen=True)
class Plan:
    """Steps `first_step` to `last_step` (not included) of a training, and which shard of them is wanted.

    The position of an image counts all images that the training has seen before it, over all processes: position p is
    row p % batch_size of step p // batch_size. Everything random about it follows from the seed and the position.
    """

    images: int
    batch_size: int
    seed: int
    first_step: int
    last_step: int
    shard: DataShard

    def __post_init__(self) -> None:
        if not 0 <= self.seed < MAX_SEED:
            raise InputError(f"`seed` (={self.seed}) must be at least 0 and below {MAX_SEED}.")
        if not 0 <= self.first_step <= self.last_step:
            raise InputError(
                f"`first_step` (={self.first_step}) must be at least 0 and at most `last_step` (={self.last_step})."
            )
        self.shard.local_batch(self.batch_size)
        _ = self.steps_per_epoch

    @property
    def local_batch(self) -> int:
        """Rows of each batch that are this process's."""
        return self.shard.local_batch(self.batch_size)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the images."""
        if self.images < self.batch_size:
            raise InputError(
                f"There are {self.images} images, fewer than one batch (`batch_size` is {self.batch_size}). "
                "Choose a smaller batch."
            )
        return self.images // self.batch_size

    def each_epoch(self, dataset: Callable[[Any, Any, Any], Any]) -> Any:
        """`dataset(epoch, start, stop)` for each epoch, one after the other, from index `start` to `stop` of its order.

        These are the indices of all processes; those of this one are told by `owner`, and their number is checked.
        """
        used = self.steps_per_epoch * self.batch_size
        first, last = self.first_step * self.batch_size, self.last_step * self.batch_size

        def one(epoch: Any) -> Any:
            before = epoch * used
            return dataset(epoch, tf.maximum(first - before, 0), tf.minimum(last - before, used))

        return tf.data.Dataset.range(first // used, -(-last // used)).flat_map(plainly(one))

    def expected(self, items: Any) -> Any:
        """`items`, of which there must be as many as this process has rows; it is an error if there are not."""
        return items.apply(
            tf.data.experimental.assert_cardinality((self.last_step - self.first_step) * self.local_batch)
        )

    def position(self, epoch: Any, index: Any) -> Any:
        """The position of the image at `index` of the order of `epoch`."""
        return epoch * (self.steps_per_epoch * self.batch_size) + index

    def owner(self, position: Any) -> Any:
        """The index of the process to which `position` belongs."""
        return position % self.batch_size // self.local_batch

    def order(self, epoch: Any) -> Any:
        """The images in the order of `epoch`; whole batches of it are used."""
        return permutation(self.images, self.stream(ORDER, epoch))

    def stream(self, which: int, position: Any) -> Any:
        """The seed of TensorFlow's stateless operations for one position."""
        return tf.stack([tf.constant(self.seed * STREAMS + which, tf.int64), position])


def permutation(count: Any, seed: Any) -> Any:
    """The numbers below `count` in random order, all orders equally likely.

    `tf.random.experimental.index_shuffle` needs no memory, but of each number in its seed it uses the last 8 bits only
    where `count` is below 65,536: orders repeat after 256 epochs, and seeds 256 apart give the same ones.
    """
    keys = tf.random.stateless_uniform([count], seed, None, None, tf.int64)
    return tf.argsort(keys, stable=True)


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as it is, for a dataset to trace: without AutoGraph, which takes seconds to find nothing to do."""
    unconverted: Callable[..., Any] = tf.autograph.experimental.do_not_convert(function)
    return unconverted
