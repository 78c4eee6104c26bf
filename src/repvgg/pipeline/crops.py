"""Random crops, as torchvision's RandomResizedCrop defines them."""

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
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    least, most = augmentation.crop_scale
    narrow, wide = augmentation.crop_ratio
    area = rows * columns * (least + (most - least) * numbers[:TRIES])
    root = tf.exp((math.log(narrow) + (math.log(wide) - math.log(narrow)) * numbers[TRIES : 2 * TRIES]) / 2)
    side = tf.sqrt(area)
    widths, heights = tf.round(side * root), tf.round(side / root)
    fits = (widths >= 1) & (widths <= columns) & (heights >= 1) & (heights <= rows)
    first = tf.argmax(fits)
    found = fits[first]
    crop_rows = tf.where(found, heights[first], tf.minimum(rows, tf.maximum(tf.round(columns / narrow), 1)))
    crop_columns = tf.where(found, widths[first], tf.minimum(columns, tf.maximum(tf.round(rows * wide), 1)))
    free = tf.stack([rows - crop_rows, columns - crop_columns])
    corner = tf.where(found, tf.floor(numbers[2 * TRIES :] * (free + 1)), tf.floor(free / 2))
    corner = tf.minimum(corner, free)
    return tf.cast(tf.concat([corner, [crop_rows, crop_columns]], axis=0), tf.int32)
