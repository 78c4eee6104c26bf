"""What eight bits cost each layer, simulated on the Keras model: the same for every target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from repvgg.base.processor import LEVELS
from repvgg.quantization.ranges import Limits, input_limits, rounded_input
from repvgg.quantization.rounding import rounded_weights, signal_to_noise
from repvgg.quantization.steps import Step, Steps, Tensor, apply, assign, batches, copied, kernel_of, spread
from repvgg.runners.keras import to_numpy
from repvgg.verification.compare import top1_matches

IMAGES = 32


@dataclass(frozen=True)
class LayerRow:
    """One convolution or dense layer.

    Attributes:
        smallest, largest: the range |w| of the output channel with the smallest and the largest one.
        spread: largest / smallest; infinite where a channel has no weight but 0.
        outliers: the largest |w| over the median of the channels' ranges.
        kurtosis: of the weights; 3 for a normal distribution, more where a few are far out.
        weight_sqnr: signal-to-quantization-noise ratio of the weights, in dB.
        output_sqnr: that of the layer's own output, with its input and weights in 8 bits.
        network_sqnr: that of the network's output with this layer alone in 8 bits.
        agreement: share of images that get the same class with this layer alone in 8 bits; None for no classifier.
    """

    name: str
    smallest: float
    largest: float
    outliers: float
    kurtosis: float
    weight_sqnr: float
    output_sqnr: float
    network_sqnr: float
    agreement: float | None

    @property
    def spread(self) -> float:
        """How far the channels' ranges are apart."""
        return self.largest / self.smallest if self.smallest > 0 else np.inf


def layer_rows(
    model: Any, images: np.ndarray, *, per_channel: bool = True, levels: int = LEVELS
) -> tuple[LayerRow, ...]:
    """A row for each convolution and dense layer of a deployed model, in order.

    Each is quantized alone: its weights to the nearest point of their grid, which has `levels` steps from 0 to the
    largest, its input to 256 points over the range that it has on `images` (N, H, W, C), of which at most 32 are used.
    """
    images = spread(images, IMAGES)
    steps = Steps(copied(model))
    limits = input_limits(steps, images)
    expected = _outputs(steps, images, apply)
    grid = {"per_channel": per_channel, "levels": levels}
    return tuple(_row(step, steps, images, limits, grid, expected) for step in steps.weighted)


def most_sensitive(rows: Sequence[LayerRow], count: int) -> tuple[str, ...]:
    """The names of the `count` layers that disturb the network's output most."""
    return tuple(row.name for row in sorted(rows, key=lambda row: row.network_sqnr)[:count])


def _row(
    step: Step,
    steps: Steps,
    images: np.ndarray,
    limits: Limits,
    grid: Mapping[str, Any],
    expected: np.ndarray,
) -> LayerRow:
    kernel = kernel_of(step.layer)
    rounded = rounded_weights(kernel, **grid)
    own: list[tuple[np.ndarray, np.ndarray]] = []

    def call(other: Step, inputs: list[Tensor]) -> Tensor:
        if other is not step:
            return apply(other, inputs)
        right = apply(step, inputs)
        assign(step.layer.kernel, rounded)
        noisy = apply(step, rounded_input(step, inputs, limits))
        assign(step.layer.kernel, kernel)
        own.append((to_numpy(right), to_numpy(noisy)))
        return noisy

    received = _outputs(steps, images, call)
    ranges = np.abs(kernel).reshape(-1, kernel.shape[-1]).max(axis=0)
    centred = kernel - kernel.mean()
    variance = float(np.square(centred).mean())
    return LayerRow(
        name=step.name,
        smallest=float(ranges.min()),
        largest=float(ranges.max()),
        outliers=float(ranges.max() / max(float(np.median(ranges)), np.finfo(np.float32).tiny)),
        kurtosis=float((centred**4).mean() / variance**2) if variance > 0 else 0.0,
        weight_sqnr=signal_to_noise(kernel, rounded),
        output_sqnr=signal_to_noise(*(np.concatenate([pair[side] for pair in own]) for side in (0, 1))),
        network_sqnr=signal_to_noise(expected, received),
        agreement=top1_matches(expected, received) / len(expected) if expected.ndim == 2 else None,
    )


def _outputs(steps: Steps, images: np.ndarray, call: Any) -> np.ndarray:
    """The network's first output for all images."""
    found = []
    for part in batches(images):
        found += [to_numpy(tensor) for step, tensor in steps.run(part, call) if step.name == steps.outputs[0]]
    return np.concatenate(found)
