"""Random rectangles: crops as torchvision's RandomResizedCrop defines them."""

import math
from typing import Any

import tensorflow as tf

from repvgg.data.augmentation import Augmentation

TRIES = 10
NUMBERS = 2 * TRIES + 2


def random_window(height: Any, width: Any, numbers: Any, augmentation: Augmentation) -> Any:
    """Where to crop an image of `height` by `width` pixels: (top, left, height, width) int32.

    Ten times an area and a ratio are drawn; the first window that fits is taken, at a random place. If none fits, it is
    the largest window in the centre whose ratio is allowed.

    Args:
        numbers: (NUMBERS,) float32, uniform in [0, 1).
    """
    height, width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    narrow, wide = augmentation.crop_ratio
    found, rows, columns = first_that_fits(height, width, numbers, augmentation.crop_scale, augmentation.crop_ratio)
    rows = tf.where(found, rows, tf.minimum(height, tf.maximum(tf.round(width / narrow), 1)))
    columns = tf.where(found, columns, tf.minimum(width, tf.maximum(tf.round(height * wide), 1)))
    down, across = height - rows, width - columns
    place = tf.where(found, corner(down, across, numbers), tf.floor(tf.stack([down, across]) / 2))
    return tf.cast(tf.concat([place, [rows, columns]], axis=0), tf.int32)


def first_that_fits(
    height: Any, width: Any, numbers: Any, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Any, Any, Any]:
    """Whether one of ten random rectangles fits into `height` by `width`, and the first's height and width."""
    (least, most), (narrow, wide) = scale, ratio
    side = tf.sqrt(height * width * (least + (most - least) * numbers[:TRIES]))
    # The square root of a ratio whose logarithm is uniform.
    root = tf.exp((math.log(narrow) + math.log(wide / narrow) * numbers[TRIES : 2 * TRIES]) / 2)
    columns, rows = tf.round(side * root), tf.round(side / root)
    fits = (columns >= 1) & (columns <= width) & (rows >= 1) & (rows <= height)
    first = tf.argmax(fits)
    return fits[first], rows[first], columns[first]


def corner(down: Any, across: Any, numbers: Any) -> Any:
    """(top, left) as float32 whole numbers, where there are `down` and `across` pixels to spare."""
    free = tf.stack([down, across])
    return tf.minimum(tf.floor(numbers[2 * TRIES : NUMBERS] * (free + 1)), free)
