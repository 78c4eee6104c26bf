"""From the bytes of a plain JPEG to pixels, exactly as Pillow reads them."""

from typing import Any

import tensorflow as tf

EXACT: dict[str, Any] = {"channels": 3, "dct_method": "INTEGER_ACCURATE", "fancy_upscaling": True}
"""Pillow's settings of libjpeg. TensorFlow's own default is a coarser transform that differs by several grey levels."""


def decode_jpeg(content: Any, channels: int) -> Any:
    """All of it: (H, W, channels) uint8."""
    return with_channels(tf.io.decode_jpeg(content, **EXACT), channels)


def decode_window(content: Any, window: Any, height: Any, width: Any, channels: int) -> Any:
    """The part `window` (top, left, height, width) of an image of `height` by `width`: what lies outside is skipped.

    Where colour is stored at half the resolution, a pixel's colour comes from its neighbours too. So a little more is
    decoded than asked for; otherwise pixels at the border of the window would differ by tens of grey levels.
    """
    top, left, rows, columns = tf.unstack(window)
    above, before = tf.minimum(top, MARGIN), tf.minimum(left, MARGIN)
    bottom, right = tf.minimum(top + rows + MARGIN, height), tf.minimum(left + columns + MARGIN, width)
    wider = tf.stack([top - above, left - before, bottom - top + above, right - left + before])
    pixels = tf.image.decode_and_crop_jpeg(content, wider, **EXACT)
    return with_channels(pixels[above : above + rows, before : before + columns], channels)


MARGIN = 2


def with_channels(pixels: Any, channels: int) -> Any:
    """(H, W, 3) uint8 as it is, as grey (H, W, 1), or with a fourth channel of 255, as Pillow makes them."""
    if channels == 3:
        return pixels
    if channels == 4:
        return tf.concat(
            [pixels, tf.fill(tf.concat([tf.shape(pixels)[:2], [1]], axis=0), tf.constant(255, tf.uint8))], -1
        )
    # Pillow's integer arithmetic. A grey JPEG has three equal channels here and comes out as it was.
    weighted = tf.reduce_sum(tf.cast(pixels, tf.int32) * tf.constant([19595, 38470, 7471]), axis=-1, keepdims=True)
    return tf.cast(tf.bitwise.right_shift(weighted + 0x8000, 16), tf.uint8)
