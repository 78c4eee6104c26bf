"""Batches of a source's images.

The training batch of step s is a pure function of the seed, s and the files, bit for bit: it does not depend on the
step one begins with, so a training that was interrupted goes on with the same data; nor on how many images are read at
a time; and a process that has shard i of n gets the i-th part of the very same batch. Nothing here keeps a random
state. Each image has a position (`sampling_order.py`), and all that is random about it follows from seed and position.
"""

import contextlib
import os
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data.augmentation import Augmentation
from repvgg.pipeline import auto_augment, crops, erasing, mixing
from repvgg.pipeline.decode import decode_jpeg, decode_window
from repvgg.pipeline.normalize import normalize
from repvgg.pipeline.rand_augment import numbers_for, rand_augment
from repvgg.pipeline.resize import resize, resize_and_crop
from repvgg.pipeline.sampling_order import NUMBERS, DataShard, Plan, plainly

CALLS = 2 * (os.cpu_count() or 1)
"""Images that are worked on at once. TensorFlow's own choice, one for each processor, leaves these idle while some of
its operations wait for their helpers."""


class Source(Protocol):
    """Where images come from. An item is a dictionary of tensors with at least `plain`, a truth value."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32."""

    def __len__(self) -> int: ...

    def routes(self) -> tuple[bool, bool]:
        """Whether there are plain JPEG files, and whether there are others."""

    def training_items(self, plan: Plan) -> Any:
        """A dataset of (position, item, label), in the order of the plan."""

    def evaluation_items(self, indices: np.ndarray) -> Any:
        """A dataset of (item, label) of the images at `indices`, which increase."""

    def jpeg(self, item: Any) -> Any:
        """The bytes of a plain JPEG file."""

    def pixels(self, item: Any, channels: int) -> Any:
        """Any other image: (H, W, channels) uint8."""

    def check_channels(self, channels: int) -> None:
        """Raises FileError if there are no images of so many channels."""


def steps_per_epoch(source: Source, batch_size: int) -> int:
    """Whole batches in one pass; which images are left out differs from pass to pass.

    Raises:
        InputError: if there are fewer images than one batch.
    """
    return Plan(len(source), batch_size, 0, 0, 0, DataShard()).steps_per_epoch


def training_batches(
    source: Source,
    preprocessing: Preprocessing,
    augmentation: Augmentation,
    *,
    batch_size: int,
    seed: int,
    first_step: int,
    last_step: int,
    shard: DataShard | None = None,
) -> Any:
    """A `tf.data.Dataset` of the batches of steps `first_step` to `last_step`, the last one not included.

    Args:
        batch_size: images of a step, over all processes.
        shard: which part of each batch this process gets; all of it if None.

    Returns:
        Pairs of images (b, S, S, C) float32, normalized, and targets (b, classes) float32, where S is
        `preprocessing.crop` and b is `batch_size // shard.count`.

    Raises:
        InputError: if there are fewer images than one batch, or it cannot be divided.
    """
    source.check_channels(preprocessing.channels)
    plan = Plan(len(source), batch_size, seed, first_step, last_step, shard or DataShard())
    mixing.check_pairs(augmentation, plan)
    side, channels, classes = preprocessing.crop, preprocessing.channels, len(source.class_names)
    settings = augmentation.rand_augment
    operations = numbers_for(settings) if settings else auto_augment.NUMBERS
    sizes = (crops.NUMBERS, 1, operations, erasing.NUMBERS, mixing.NUMBERS)
    fill = 255 * sum(preprocessing.mean) / channels

    def augmented(position: Any, item: Any, label: Any) -> tuple[Any, ...]:
        crop, flip, operated, erased, mixed = _random_numbers(plan, position, sizes)

        def from_jpeg() -> Any:
            content = source.jpeg(item)
            height, width = tf.unstack(tf.io.extract_jpeg_shape(content)[:2])
            window = crops.random_window(height, width, crop, augmentation)
            return resize(decode_window(content, window, height, width, channels), side)

        def from_pixels() -> Any:
            pixels = source.pixels(item, channels)
            height, width = tf.unstack(tf.shape(pixels)[:2])
            top, left, rows, columns = tf.unstack(crops.random_window(height, width, crop, augmentation))
            return resize(pixels[top : top + rows, left : left + columns], side)

        image = _by_route(source, item, from_jpeg, from_pixels)
        if augmentation.flip:
            image = tf.cond(flip[0] < 0.5, lambda: tf.reverse(image, axis=[1]), lambda: image)
        if settings is not None:
            image = rand_augment(image, settings, fill, operated)
        if augmentation.auto_augment:
            image = auto_augment.auto_augment(image, fill, operated)
        image = normalize(image, preprocessing)
        if augmentation.random_erasing:
            image = erasing.erase(image, augmentation.random_erasing, plan, position, erased)
        if mixing.mixes(augmentation):
            return image, label, mixing.draw(augmentation, plan, position, mixed, side)
        return image, label

    def finished(images: Any, labels: Any, drawn: Any = None) -> tuple[Any, Any]:
        targets = tf.one_hot(labels, classes)
        if drawn is not None:
            return mixing.mix(images, targets, drawn, rectangles=augmentation.cutmix > 0)
        return images, targets

    with _on_the_cpu():
        items = source.training_items(plan).map(plainly(augmented), num_parallel_calls=CALLS)
        batches = items.batch(plan.local_batch, drop_remainder=True).map(plainly(finished))
        return batches.with_options(_options()).prefetch(tf.data.AUTOTUNE)


def evaluation_batches(
    source: Source, preprocessing: Preprocessing, *, batch_size: int, shard: DataShard | None = None
) -> Any:
    """A `tf.data.Dataset` of all images in order, prepared as `repvgg.data.prepare_image` does.

    The last batch may be short. A pixel differs from Pillow's by one grey level at most.

    Args:
        batch_size: images of a batch, over all processes.
        shard: which part of each batch this process gets; all of it if None. Of a short last batch a process may get
            fewer images than another, or none, and then one batch fewer.

    Returns:
        Pairs of images (b, S, S, C) float32, normalized, and labels (b,) int32.

    Raises:
        InputError: if the batch cannot be divided.
    """
    source.check_channels(preprocessing.channels)
    shard = shard or DataShard()
    local = shard.local_batch(batch_size)
    everything = np.arange(len(source))
    indices = everything[everything % batch_size // local == shard.index]
    channels = preprocessing.channels

    def prepared(item: Any, label: Any) -> tuple[Any, Any]:
        pixels = _by_route(
            source,
            item,
            lambda: decode_jpeg(source.jpeg(item), channels),
            lambda: source.pixels(item, channels),
        )
        return normalize(resize_and_crop(pixels, preprocessing.resize, preprocessing.crop), preprocessing), label

    with _on_the_cpu():
        items = source.evaluation_items(indices).map(plainly(prepared), num_parallel_calls=CALLS)
        return items.batch(local).with_options(_options()).prefetch(tf.data.AUTOTUNE)


def _random_numbers(plan: Plan, position: Any, sizes: tuple[int, ...]) -> list[Any]:
    numbers = tf.random.stateless_uniform((sum(sizes),), plan.stream(NUMBERS, position), dtype=tf.float32)
    parts: list[Any] = tf.split(numbers, sizes)
    return parts


def _by_route(source: Source, item: Any, from_jpeg: Any, from_pixels: Any) -> Any:
    plain, other = source.routes()
    if plain and other:
        return tf.cond(item["plain"], from_jpeg, from_pixels)
    if not plain and not other:
        raise InputError("There are no images to make batches of.")
    return from_jpeg() if plain else from_pixels()


def _on_the_cpu() -> Any:
    """Where all of this runs; on another backend TensorFlow is kept from taking the memory of the model's GPUs."""
    if keras.backend.backend() != "tensorflow":
        # It refuses once it has started, which is too late then, and no harm where there is no GPU.
        with contextlib.suppress(RuntimeError):
            tf.config.set_visible_devices([], "GPU")
    return tf.device("CPU:0")


def _options() -> Any:
    options = tf.data.Options()
    options.deterministic = True
    # What runs before the parallel part is a few table look-ups; handing each to a thread costs more than doing it.
    options.experimental_optimization.map_parallelization = False
    # Each process makes its own shard; Keras and TensorFlow must not divide it once more.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return options
