"""Pillow's antialiased bilinear resize with TensorFlow's operations, and quick."""

import math
from typing import Any

import tensorflow as tf

DOUBT = 2e-3
"""How far, in grey levels, the sum of a pixel's weighted neighbours can be from Pillow's."""


ANTIALIASED_FROM = 1.5
"""How often a side has to be `side` long for antialiasing.

Plain interpolation between two neighbours passes over no pixel before a side is halved. At 1.5 photos differ by 2 grey
levels in the mean from Pillow's antialiased filter, which differs by 2.7 from the next better one (Lanczos).
"""


def resize(pixels: Any, side: int) -> Any:
    """(H, W, C) uint8 to (side, side, C) float32 in [0, 255]: random crops, bilinear.

    Antialiased where a direction shrinks by `ANTIALIASED_FROM` or more. TensorFlow's plain operation is several times
    as fast, and most crops are hardly larger than what they become.
    """
    channels = pixels.shape[-1]
    height, width = tf.unstack(tf.shape(pixels)[:2])

    # Floats first: the operation is slower on integers.
    image = tf.cast(pixels, tf.float32)
    tall, wide = (length >= math.ceil(ANTIALIASED_FROM * side) for length in (height, width))
    image = tf.cond(tall, lambda: _resize_rows(image, side, side / height, 0.0), lambda: image)
    image = tf.cond(wide, lambda: _swap(_resize_rows(_swap(image), side, side / width, 0.0)), lambda: image)
    result = tf.raw_ops.ResizeBilinear(images=image[None], size=(side, side), half_pixel_centers=True)[0]
    return tf.ensure_shape(result, (side, side, channels))


def resize_and_crop(pixels: Any, resize_to: int, crop: int) -> Any:
    """(H, W, C) uint8 to (crop, crop, C) float32 of whole numbers: what `prepare_image` does, before it normalizes.

    Pillow goes along the rows first, rounds to 8 bits, and goes along the columns. In the same order and with the same
    rounding a pixel is hardly ever another than Pillow's, and then by one grey level.
    """
    height, width = (tf.cast(length, tf.float64) for length in tf.unstack(tf.shape(pixels)[:2]))
    scale = tf.cast(resize_to, tf.float64) / tf.minimum(height, width)
    # Both Python's `round` and TensorFlow's take halves to the even number.
    new_height, new_width = (tf.maximum(tf.round(length * scale), float(crop)) for length in (height, width))
    top, left = tf.round((new_height - crop) / 2), tf.round((new_width - crop) / 2)
    columns = _rounded(_resize_rows(_swap(tf.cast(pixels, tf.float32)), crop, new_width / width, -left))
    result = tf.floor(_resize_rows(_swap(columns), crop, new_height / height, -top) + 0.5)
    return tf.ensure_shape(result, (crop, crop, pixels.shape[-1]))


def _resize_rows(pixels: Any, size: int, scale: Any, translation: Any) -> Any:
    """(H, W, C) to (size, W, C) float32.

    TensorFlow's operation is slow along the width, where it handles few channels at a time. So a row is presented as
    one pixel with W * C channels; `_swap` makes columns rows.
    """
    channels = pixels.shape[-1]
    height, width = tf.unstack(tf.shape(pixels)[:2])
    rows = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(pixels, (1, height, 1, width * channels)),
        size=(size, 1),
        scale=tf.stack([tf.cast(scale, tf.float32), 1.0]),
        translation=tf.stack([tf.cast(translation, tf.float32), 0.0]),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(rows, (size, width, channels))


def _rounded(pixels: Any) -> Any:
    """To whole grey levels, halves up, except where it cannot be told what Pillow makes of a half.

    Halves are frequent where the size grows by a ratio such as 8 : 5. Pillow's weights are integers of 22 bits and the
    last of these decides. Such a pixel stays a half: so it is at most half a level off here, and one in the end.
    """
    return (tf.floor(pixels + (0.5 - DOUBT)) + tf.floor(pixels + (0.5 + DOUBT))) / 2


def _swap(pixels: Any) -> Any:
    return tf.transpose(pixels, (1, 0, 2))
