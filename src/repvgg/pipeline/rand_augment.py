"""RandAugment: operations on single images, chosen at random (Cubuk et al., arXiv 1909.13719).

keras.layers.RandAugment (3.15) cannot serve here. It takes a `seed`, but draws differently with the same one; it
chooses the same operations for all images of a batch; and as it computes all of them and keeps one, it takes more than
5 ms for an image of 64 pixels.
"""

from typing import Any

import tensorflow as tf

from repvgg.data.augmentation import RandAugment
from repvgg.pipeline.operations import OPERATIONS, apply_all, invert

CHOICE = [number for number, operation in enumerate(OPERATIONS) if operation is not invert]


def numbers_for(settings: RandAugment) -> int:
    """How many random numbers `rand_augment` wants."""
    return 2 * settings.num_ops


def rand_augment(image: Any, settings: RandAugment, fill: float, numbers: Any) -> Any:
    """`settings.num_ops` operations one after the other, on (S, S, C) float32 in [0, 255].

    Args:
        fill: grey level of what comes from outside the image.
        numbers: (2 * num_ops,) float32, uniform in [0, 1).
    """
    which = tf.gather(tf.constant(CHOICE), tf.cast(numbers[: settings.num_ops] * len(CHOICE), tf.int32))
    strengths = tf.where(numbers[settings.num_ops :] < 0.5, -1.0, 1.0) * (settings.magnitude / 10)
    return apply_all(image, which, strengths, fill)
