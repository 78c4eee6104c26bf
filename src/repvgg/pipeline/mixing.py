"""Mixup and CutMix: an image blended with another one of its batch."""

from typing import Any

import tensorflow as tf

from repvgg.base.errors import InputError
from repvgg.data.augmentation import Augmentation
from repvgg.pipeline.sampling_order import BETA, Plan

# keras.layers.MixUp and CutMix pair image k with a random other one of the batch they are given. A process that has
# only a part of the batch would pair differently. So rows 2k and 2k + 1 are each other's partners: as the order of an
# epoch is random, so is the partner, and both lie in the same part.

NUMBERS = 5


def mixes(augmentation: Augmentation) -> bool:
    """Whether images are mixed at all."""
    return augmentation.mixup > 0 or augmentation.cutmix > 0


def check_pairs(augmentation: Augmentation, plan: Plan) -> None:
    """Raises InputError unless the rows of a batch come in pairs."""
    if mixes(augmentation) and plan.local_batch % 2:
        raise InputError(
            f"Mixup and CutMix need pairs of images, and each process has {plan.local_batch} of a batch of "
            f"{plan.batch_size}. Choose a batch that leaves each an even number."
        )


def draw(augmentation: Augmentation, plan: Plan, position: Any, numbers: Any, side: int) -> Any:
    """How the image at `position` is mixed: (6,) float32.

    That is the partner's share of the label, its share of each pixel inside a rectangle, and the rectangle: from row,
    to row, from column, to column.
    """
    coin, row, column = tf.unstack(numbers[:3])
    seed, powers = plan.stream(BETA, position), numbers[3:NUMBERS]
    whole = tf.constant([0, side, 0, side], tf.float32)

    def mixup() -> Any:
        share = 1 - _beta(augmentation.mixup, seed, powers)
        return tf.concat([[share, share], whole], axis=0)

    def cutmix() -> Any:
        half = side * tf.sqrt(1 - _beta(augmentation.cutmix, seed, powers)) / 2
        edges = tf.stack([row * side - half, row * side + half, column * side - half, column * side + half])
        edges = tf.clip_by_value(tf.round(edges), 0, side)
        share = (edges[1] - edges[0]) * (edges[3] - edges[2]) / side**2
        return tf.concat([[share, 1.0], edges], axis=0)

    if augmentation.mixup > 0 and augmentation.cutmix > 0:
        return tf.cond(coin < 0.5, mixup, cutmix)
    return mixup() if augmentation.mixup > 0 else cutmix()


def mix(images: Any, targets: Any, drawn: Any, *, rectangles: bool) -> tuple[Any, Any]:
    """Blends (b, S, S, C) images and (b, classes) targets with their partners', as `drawn` (b, 6) says."""
    label_share, pixel_share = drawn[:, :1], drawn[:, 1, None, None, None]
    partners = _swap_pairs(images)
    if rectangles:
        line = tf.range(images.shape[1], dtype=tf.float32)
        rows = (line >= drawn[:, 2:3]) & (line < drawn[:, 3:4])
        columns = (line >= drawn[:, 4:5]) & (line < drawn[:, 5:6])
        inside = (rows[:, :, None] & columns[:, None, :])[..., None]
        pixel_share = tf.where(inside, pixel_share, 0.0)
    images = images * (1 - pixel_share) + partners * pixel_share
    return images, targets * (1 - label_share) + _swap_pairs(targets) * label_share


def _beta(alpha: float, seed: Any, numbers: Any) -> Any:
    """A number of the distribution Beta(alpha, alpha), float32; `numbers` are two uniform ones."""
    # X / (X + Y) of gamma variates, which are taken as logarithms: those of a small alpha are too small for any float.
    # A variate of alpha is one of alpha + 1 times U ** (1 / alpha).
    larger = tf.random.stateless_gamma((2,), seed, alpha + 1, dtype=tf.float64)
    logarithms = tf.math.log(larger) + tf.math.log1p(-tf.cast(numbers, tf.float64)) / alpha
    return tf.cast(tf.sigmoid(logarithms[0] - logarithms[1]), tf.float32)


def _swap_pairs(values: Any) -> Any:
    shape = tf.shape(values)
    pairs = tf.reshape(values, tf.concat([[shape[0] // 2, 2], shape[1:]], axis=0))
    return tf.ensure_shape(tf.reshape(tf.reverse(pairs, axis=[1]), shape), values.shape)
