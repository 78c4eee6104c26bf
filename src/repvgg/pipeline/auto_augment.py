"""AutoAugment with the policy found for ImageNet (Cubuk et al., arXiv 1805.09501, table 9)."""

from typing import Any

import tensorflow as tf

from repvgg.pipeline import operations as ops

Entry = tuple[ops.Operation, float, int]
"""An operation, the probability that it is done, and its strength in ninths."""

POLICY: tuple[tuple[Entry, Entry], ...] = (
    ((ops.posterize, 0.4, 8), (ops.rotate, 0.6, 9)),
    ((ops.solarize, 0.6, 5), (ops.autocontrast, 0.6, 5)),
    ((ops.equalize, 0.8, 8), (ops.equalize, 0.6, 3)),
    ((ops.posterize, 0.6, 7), (ops.posterize, 0.6, 6)),
    ((ops.equalize, 0.4, 7), (ops.solarize, 0.2, 4)),
    ((ops.equalize, 0.4, 4), (ops.rotate, 0.8, 8)),
    ((ops.solarize, 0.6, 3), (ops.equalize, 0.6, 7)),
    ((ops.posterize, 0.8, 5), (ops.equalize, 1.0, 2)),
    ((ops.rotate, 0.2, 3), (ops.solarize, 0.6, 8)),
    ((ops.equalize, 0.6, 8), (ops.posterize, 0.4, 6)),
    ((ops.rotate, 0.8, 8), (ops.color, 0.4, 0)),
    ((ops.rotate, 0.4, 9), (ops.equalize, 0.6, 2)),
    ((ops.equalize, 0.0, 7), (ops.equalize, 0.8, 8)),
    ((ops.invert, 0.6, 4), (ops.equalize, 1.0, 8)),
    ((ops.color, 0.6, 4), (ops.contrast, 1.0, 8)),
    ((ops.rotate, 0.8, 8), (ops.color, 1.0, 2)),
    ((ops.color, 0.8, 8), (ops.solarize, 0.8, 7)),
    ((ops.sharpness, 0.4, 7), (ops.invert, 0.6, 8)),
    ((ops.shear_x, 0.6, 5), (ops.equalize, 1.0, 9)),
    ((ops.color, 0.4, 0), (ops.equalize, 0.6, 3)),
    ((ops.equalize, 0.4, 7), (ops.solarize, 0.2, 4)),
    ((ops.solarize, 0.6, 5), (ops.autocontrast, 0.6, 5)),
    ((ops.invert, 0.6, 4), (ops.equalize, 1.0, 8)),
    ((ops.color, 0.6, 4), (ops.contrast, 1.0, 8)),
    ((ops.equalize, 0.8, 8), (ops.equalize, 0.6, 3)),
)

NUMBERS = 5


def auto_augment(image: Any, fill: float, numbers: Any) -> Any:
    """One of the 25 pairs of operations, on (S, S, C) float32 in [0, 255].

    Args:
        fill: grey level of what comes from outside the image.
        numbers: (NUMBERS,) float32, uniform in [0, 1).
    """
    pair = tf.cast(numbers[0] * len(POLICY), tf.int32)
    which = tf.constant([[ops.OPERATIONS.index(entry[0]) for entry in pair] for pair in POLICY])[pair]
    probability = tf.constant([[entry[1] for entry in pair] for pair in POLICY], tf.float32)[pair]
    strength = tf.constant([[entry[2] / 9 for entry in pair] for pair in POLICY], tf.float32)[pair]
    which = tf.where(numbers[1:3] < probability, which, ops.OPERATIONS.index(ops.identity))
    return ops.apply_all(image, which, strength * tf.where(numbers[3:5] < 0.5, -1.0, 1.0), fill)
