"""Random erasing: a rectangle becomes noise (Zhong et al., arXiv 1708.04896), within torchvision's limits."""

from typing import Any

import tensorflow as tf

from repvgg.pipeline import crops
from repvgg.pipeline.sampling_order import NOISE, Plan

NUMBERS = crops.NUMBERS + 1
SCALE = (0.02, 0.33)
RATIO = (0.3, 3.3)

# keras.layers.RandomErasing (3.15) takes Python integers as seeds only, and a tensor where there is one for each image.


def erase(image: Any, probability: float, plan: Plan, position: Any, numbers: Any) -> Any:
    """Normal noise for a rectangle of a normalized (S, S, C) image, with the given probability.

    Args:
        numbers: (NUMBERS,) float32, uniform in [0, 1).
    """
    height, width, channels = image.shape
    found, rows, columns = crops.first_that_fits(float(height), float(width), numbers[1:], SCALE, RATIO)

    def erased() -> Any:
        corner = crops.corner(height - rows, width - columns, numbers[1:])
        (top, left), size = tf.unstack(tf.cast(corner, tf.int32)), tf.cast([rows, columns], tf.int32)
        seed = plan.stream(NOISE, position)
        noise = tf.random.stateless_normal(tf.concat([size, [channels]], axis=0), seed)
        inside = tf.ones((size[0], size[1], 1), tf.bool)
        around = [[top, height - top - size[0]], [left, width - left - size[1]], [0, 0]]
        result = tf.where(tf.pad(inside, around), tf.pad(noise, around), image)
        return tf.ensure_shape(result, image.shape)

    return tf.cond(found & (numbers[0] < probability), erased, lambda: image)
