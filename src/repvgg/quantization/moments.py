"""How a layer's inputs vary together: what rounding and correcting its weights go by."""

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np

from repvgg.quantization.steps import Step, Tensor, batches
from repvgg.runners.keras import to_numpy

ROWS_PER_INPUT = 4
MIN_ROWS = 4096
"""Patches of a layer's input that are looked at: some times as many as a kernel has inputs, and never few."""

IMAGES_AT_ONCE = 8


@dataclass(frozen=True)
class Moments:
    """Second moments of the inputs (n) of one group of a layer's kernel, over many patches.

    Attributes:
        received: (n, n), the mean of x x^T, with x what the layer gets.
        shared: (n, n), the mean of x y^T, with y what it would get in the network in float32.
    """

    received: np.ndarray
    shared: np.ndarray


def input_moments(step: Step, received: Tensor, wanted: Tensor) -> list[Moments]:
    """The moments of each group of a convolution or dense layer.

    About 0, not about the mean: what a bias could make up for is not the same where padding is read.

    Args:
        received, wanted: the layer's inputs, of the same images and in the same order.
    """
    groups = getattr(step.layer, "groups", 1)
    totals: list[tuple[np.ndarray, np.ndarray]] = []
    count = 0
    for pair in _patches(step, received, wanted):
        halves = [[part.reshape(len(part), -1) for part in np.split(rows, groups, axis=2)] for rows in pair]
        found = [(left.T @ left, left.T @ right) for left, right in zip(*halves, strict=True)]
        # Products in float32, sums in float64.
        totals = (
            [(total + own, mixed + other) for (total, mixed), (own, other) in zip(totals, found, strict=True)]
            if totals
            else [(own.astype(np.float64), other.astype(np.float64)) for own, other in found]
        )
        count += len(pair[0])
    return [Moments(own / count, mixed / count) for own, mixed in totals]


def _patches(step: Step, received: Tensor, wanted: Tensor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Some patches, (rows, k * k, C), of both inputs at the same places, a few images at a time."""
    generator = np.random.default_rng(0)
    inputs = ROWS_PER_INPUT * int(np.prod(step.layer.kernel.shape[:-1]))
    for parts in zip(batches(received, IMAGES_AT_ONCE), batches(wanted, IMAGES_AT_ONCE), strict=True):
        rows = [_rows(step, part) for part in parts]
        share = max(1, max(MIN_ROWS, inputs) * len(parts[0]) // len(received))
        chosen = generator.permutation(len(rows[0]))[:share]
        yield rows[0][chosen], rows[1][chosen]


def _rows(step: Step, inputs: Tensor) -> np.ndarray:
    """All patches that a layer reads of a few images, (rows, k * k, C)."""
    layer = step.layer
    channels = inputs.shape[-1]
    if isinstance(layer, keras.layers.Dense):
        return to_numpy(inputs).reshape(-1, 1, channels)
    patches = keras.ops.image.extract_patches(
        inputs, layer.kernel_size, layer.strides, layer.dilation_rate, padding=layer.padding
    )
    return to_numpy(patches).reshape(-1, int(np.prod(layer.kernel_size)), channels)
