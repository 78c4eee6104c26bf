"""Operations of Pillow's on single images, of which RandAugment and AutoAugment choose at random.

The operations and their ranges are torchvision's.
"""

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Operation = Callable[[Any, Any, float], Any]
"""Image (S, S, C) of grey levels 0 to 255, strength, grey level for what comes from outside the image -> image.

The strength goes from 0 to 1. Its sign is random, and says the direction where an operation has one.
"""

GREY = (0.299, 0.587, 0.114)


def apply_all(image: Any, which: Any, strengths: Any, fill: float) -> Any:
    """Operations of these numbers in `OPERATIONS`, one after the other, on (S, S, C) float32."""

    def one(turn: Any, image: Any) -> tuple[Any, Any]:
        return turn + 1, apply(image, which[turn], strengths[turn], fill)

    # A loop, not a chain, because tracing all the operations takes a second.
    turns = which.shape[0]
    return tf.while_loop(lambda turn, _: turn < turns, one, (0, image), parallel_iterations=1)[1]


def apply(image: Any, which: Any, strength: Any, fill: float) -> Any:
    """Operation number `which` of `OPERATIONS` on (S, S, C) float32."""

    def branch(operation: Operation) -> Callable[[], Any]:
        return lambda: tf.ensure_shape(_on_colours(operation, image, strength, fill), image.shape)

    return tf.switch_case(which, [branch(operation) for operation in OPERATIONS])


def identity(image: Any, _strength: Any, _fill: float) -> Any:
    """Nothing."""
    return image


def shear_x(image: Any, strength: Any, fill: float) -> Any:
    """Up to 0.3 pixels sideways a pixel down."""
    return _affine(image, [1.0, 0.3 * strength, 0.0, 1.0], [0.0, 0.0], fill)


def shear_y(image: Any, strength: Any, fill: float) -> Any:
    """Up to 0.3 pixels down a pixel sideways."""
    return _affine(image, [1.0, 0.0, 0.3 * strength, 1.0], [0.0, 0.0], fill)


def translate_x(image: Any, strength: Any, fill: float) -> Any:
    """Sideways by up to 150/331 of the width."""
    return _affine(image, [1.0, 0.0, 0.0, 1.0], [150 / 331 * strength * image.shape[1], 0.0], fill)


def translate_y(image: Any, strength: Any, fill: float) -> Any:
    """Up or down by up to 150/331 of the height."""
    return _affine(image, [1.0, 0.0, 0.0, 1.0], [0.0, 150 / 331 * strength * image.shape[0]], fill)


def rotate(image: Any, strength: Any, fill: float) -> Any:
    """By up to 30 degrees about the centre."""
    angle = strength * math.radians(30)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _affine(image, [cosine, -sine, sine, cosine], [0.0, 0.0], fill)


def brightness(image: Any, strength: Any, _fill: float) -> Any:
    """Away from or towards black."""
    return _blend(tf.zeros_like(image), image, strength)


def color(image: Any, strength: Any, _fill: float) -> Any:
    """Away from or towards grey."""
    return _blend(tf.broadcast_to(_grey(image), image.shape), image, strength)


def contrast(image: Any, strength: Any, _fill: float) -> Any:
    """Away from or towards the mean grey level."""
    return _blend(tf.fill(image.shape, tf.floor(tf.reduce_mean(_grey(image)) + 0.5)), image, strength)


def sharpness(image: Any, strength: Any, _fill: float) -> Any:
    """Away from or towards an image whose pixels are averaged with their neighbours, except at the border."""
    inner = image[1:-1, 1:-1]
    rows = image[:-2] + image[1:-1] + image[2:]
    smooth = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] + 4 * inner) / 13
    return _blend(image + tf.pad(smooth - inner, ((1, 1), (1, 1), (0, 0))), image, strength)


def posterize(image: Any, strength: Any, _fill: float) -> Any:
    """8 to 4 bits for a grey level."""
    step = 2.0 ** tf.round(4 * tf.abs(strength))
    return tf.floor(tf.round(image) / step) * step


def solarize(image: Any, strength: Any, _fill: float) -> Any:
    """What is bright is inverted."""
    return tf.where(image >= 255 * (1 - tf.abs(strength)), 255 - image, image)


def autocontrast(image: Any, _strength: Any, _fill: float) -> Any:
    """Each channel from black to white."""
    low, high = (reduce(image, axis=(0, 1)) for reduce in (tf.reduce_min, tf.reduce_max))
    flat = high <= low
    return tf.where(flat, image, (image - low) * (255 / tf.where(flat, 1.0, high - low)))


def equalize(image: Any, _strength: Any, _fill: float) -> Any:
    """Each channel with as many pixels of any grey level."""
    levels = tf.cast(tf.round(image), tf.int32)
    return tf.stack([_equalized(levels[..., channel]) for channel in range(image.shape[-1])], axis=-1)


def invert(image: Any, _strength: Any, _fill: float) -> Any:
    """Black to white."""
    return 255 - image


OPERATIONS: tuple[Operation, ...] = (
    identity,
    shear_x,
    shear_y,
    translate_x,
    translate_y,
    rotate,
    brightness,
    color,
    contrast,
    sharpness,
    posterize,
    solarize,
    autocontrast,
    equalize,
    invert,
)


MOVING = frozenset({identity, shear_x, shear_y, translate_x, translate_y, rotate})
"""Operations that move pixels, and with them all their channels."""


def _on_colours(operation: Operation, image: Any, strength: Any, fill: float) -> Any:
    """The operation; what changes colours leaves a fourth channel alone, which is not a colour."""
    if image.shape[-1] <= 3 or operation in MOVING:
        return operation(image, strength, fill)
    return tf.concat([operation(image[..., :3], strength, fill), image[..., 3:]], axis=-1)


def _affine(image: Any, matrix: list[Any], shift: list[Any], fill: float) -> Any:
    """The pixel at `p` comes from `matrix @ (p - centre) + centre + shift`, x before y."""
    height, width = image.shape[0], image.shape[1]
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    xx, xy, yx, yy = matrix
    along = middle_x + shift[0] - xx * middle_x - xy * middle_y
    down = middle_y + shift[1] - yx * middle_x - yy * middle_y
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=tf.stack([xx, xy, along, yx, yy, down, 0.0, 0.0])[None],
        output_shape=(height, width),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=fill,
    )[0]


def _blend(other: Any, image: Any, strength: Any) -> Any:
    """`image` moved away from `other` by up to 0.9 of their difference, or towards it."""
    return tf.clip_by_value(other + (image - other) * (1 + 0.9 * strength), 0.0, 255.0)


def _grey(image: Any) -> Any:
    return image if image.shape[-1] == 1 else tf.reduce_sum(image * tf.constant(GREY), axis=-1, keepdims=True)


def _equalized(levels: Any) -> Any:
    """As Pillow does it, in integers."""
    histogram = tf.math.bincount(tf.reshape(levels, (-1,)), minlength=256, maxlength=256, dtype=tf.int32)
    last = tf.reduce_max(tf.where(histogram > 0, tf.range(256), 0))
    step = (tf.reduce_sum(histogram) - histogram[last]) // 255
    table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
    return tf.cast(tf.gather(table, levels), tf.float32)
