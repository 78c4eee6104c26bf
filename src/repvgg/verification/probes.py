"""Images to compare with when the caller has none."""

import numpy as np

from repvgg.base.errors import InputError
from repvgg.runners.runner import Runner

PROBE_SIZES = (64, 75)
"""Even at every stride of a five-stage network, and odd at every stride: padding mistakes show in one of the two."""

PROBE_IMAGES = 4


def probe_images(reference: Runner, candidate: Runner, seed: int = 0) -> list[np.ndarray]:
    """Batches of images of the sizes that both sides accept: normally distributed, or random pixels in uint8 if one
    of the two normalizes them itself.

    Raises:
        InputError: if there are none.
    """
    height, width, channels = _common_shape(reference, candidate)
    sizes = PROBE_SIZES if height is None or width is None else (0,)
    count = reference.batch_size or candidate.batch_size or PROBE_IMAGES
    generator = np.random.default_rng(seed)
    shapes = [(count, height or size, width or size, channels) for size in sizes]
    if reference.takes_uint8 or candidate.takes_uint8:
        return [generator.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return [generator.standard_normal(shape, dtype=np.float32) for shape in shapes]


def _common_shape(reference: Runner, candidate: Runner) -> tuple[int | None, int | None, int]:
    shape = []
    for side, first, second in zip(
        ("heights", "widths", "channels"), reference.input_shape, candidate.input_shape, strict=True
    ):
        if first is not None and second is not None and first != second:
            raise InputError(
                f"'{reference.name}' and '{candidate.name}' take images of different {side} ({first} and {second}), "
                "so no image fits both."
            )
        shape.append(first if first is not None else second)
    if shape[2] is None:
        raise InputError("The number of channels of the images is unknown. Pass `images`.")
    return shape[0], shape[1], shape[2]
