"""Noise-optimal equalization: the channel scales with which eight bits add the least noise to the network's outputs.

An output channel i of one layer, an input channel of others, may be divided by s_i (`equalization_groups.py`). The
noise that a layer adds is then, with rounding errors that are independent and uniform within a step:

    of its inputs:      A^2 / (12 * 255^2) * sum_j g_j sum_i w_ij^2 s_i^2,          A = max_i a_i / s_i
    of its weights:     M^2 / (12 * n^2) * sum_j g_j t_j^2 * sum_i k^2 x_i / s_i^2,   M = max_ij |w_ij| s_i / t_j

with s the scales of its inputs and t those of its outputs, a_i the range and x_i the mean square of an input, w_ij^2
summed over the k x k places, n the steps from 0 to the largest weight, and g_j the importance of an output
(`channels.py`). Where each output channel has a grid of its own, the maximum in M is over i alone.

The sum over all layers is a posynomial: its logarithm is convex in the logarithms of the scales, so there is one
minimum, and a general method finds it (scipy's L-BFGS). It is the same for all networks that differ in channel scales
only. Maxima are 20-norms here, which can be differentiated.

The idea of choosing these scales is of Nagel et al. (ICCV 2019) and Meller et al., "Same, Same But Different" (ICML
2019), whose rules balance ranges; here what ranges are balanced for is what is minimized.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize

from repvgg.base.processor import LEVELS
from repvgg.quantization.channels import LayerChannels
from repvgg.quantization.equalization_groups import EqualizationGroup, Weights
from repvgg.quantization.steps import Step

NORM = 20.0

ACTIVATION_STEPS = 255

WEIGHT_SHARE = 0.25
"""What is left of the noise of weights after rounding that makes up for itself; a quarter is 6 dB."""

ITERATIONS = 3000

LEAST_RANGE, LEAST_IMPORTANCE = 0.1, 1e-3
"""What a channel counts for at least: a range of so many standard deviations before its activation, for it may be
active on other images; and such a share of the others' mean importance."""


def noise_optimal_scales(
    groups: Sequence[EqualizationGroup],
    weights: Weights,
    channels: Mapping[str, LayerChannels],
    *,
    per_channel: bool,
    levels: int = LEVELS,
) -> dict[str, np.ndarray]:
    """What each group's channels (C,) are to be divided by, by the producer's name.

    They are such that the largest range among each group's channels is 1.

    Args:
        per_channel: whether each output channel's weights have a grid of their own.
        levels: its steps from 0 to the largest weight.
    """
    producers = {consumer.name: group.producer.name for group in groups for consumer in group.consumers}
    layers = [_layer(step, weights.kernels[step.name], channels, producers) for step in _layers(groups)]
    slices: dict[str, slice] = {}
    end = 0
    for group in groups:
        start, end = end, end + group.producer.layer.kernel.shape[-1]
        slices[group.producer.name] = slice(start, end)
    ranges: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.name in producers:
            known = ranges.get(producers[layer.name], layer.log_range)
            ranges[producers[layer.name]] = np.maximum(known, layer.log_range)
    first = np.concatenate([ranges[name] for name in slices])

    def noise(logs: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = 0.0, np.zeros_like(logs)
        for layer in layers:
            inputs, outputs = slices.get(producers.get(layer.name, "")), slices.get(layer.name)
            found = layer.noise(
                np.zeros(layer.inputs) if inputs is None else logs[inputs],
                np.zeros(layer.outputs) if outputs is None else logs[outputs],
                per_channel=per_channel,
                levels=levels,
            )
            total += found.power
            if inputs is not None:
                slope[inputs] += found.by_inputs
            if outputs is not None:
                slope[outputs] += found.by_outputs
        return float(np.log(total)), slope / total

    result = scipy.optimize.minimize(
        noise, first, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": 1e-12, "gtol": 1e-7}
    )
    scales = {}
    for name, place in slices.items():
        logs = result.x[place]
        scales[name] = np.exp(logs + (ranges[name] - logs).max())
    return scales


@dataclass(frozen=True)
class _Noise:
    """A power, and its derivatives by the logarithms of the scales of inputs and of outputs."""

    power: float
    by_inputs: np.ndarray
    by_outputs: np.ndarray


@dataclass(frozen=True)
class _Layer:
    """A layer's numbers, by the groups of its convolution: matrices are (groups, C / groups, F / groups).

    Attributes:
        log_range: (C,).
        power: (groups, C / groups), the sum over the k x k places.
        importance: (groups, F / groups).
        weighted_squares: (groups, C / groups), sum_j g_j w_ij^2.
        norms: |w|^20, scaled so that the largest is 1.
        log_largest: the logarithm of the largest weight.
    """

    name: str
    log_range: np.ndarray
    power: np.ndarray
    importance: np.ndarray
    weighted_squares: np.ndarray
    norms: np.ndarray
    log_largest: float

    @property
    def inputs(self) -> int:
        return int(self.power.size)

    @property
    def outputs(self) -> int:
        return int(self.importance.size)

    def noise(self, input_logs: np.ndarray, output_logs: np.ndarray, *, per_channel: bool, levels: int) -> _Noise:
        s, t = input_logs.reshape(self.power.shape), output_logs.reshape(self.importance.shape)
        inputs, inputs_slope = self._of_inputs(s)
        factor = WEIGHT_SHARE / (12 * levels**2)
        weights, by_inputs, by_outputs = (self._of_rows if per_channel else self._of_tensor)(s, t, factor)
        return _Noise(inputs + weights, (inputs_slope + by_inputs).ravel(), by_outputs.ravel())

    def _of_inputs(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        far = self.log_range.reshape(s.shape) - s
        largest = _norm(far)
        terms = np.exp(2 * largest) / (12 * ACTIVATION_STEPS**2) * self.weighted_squares * np.exp(2 * s)
        power = float(terms.sum())
        return power, 2 * (terms - power * np.exp(NORM * (far - largest)))

    def _of_tensor(self, s: np.ndarray, t: np.ndarray, factor: float) -> tuple[float, np.ndarray, np.ndarray]:
        """One grid for all weights."""
        up, down = np.exp(NORM * (s - s.max())), np.exp(-NORM * (t - t.min()))
        columns = np.einsum("gij,gi->gj", self.norms, up) * down
        rows = np.einsum("gij,gj->gi", self.norms, down) * up
        total = columns.sum()
        if total == 0:
            return 0.0, np.zeros_like(s), np.zeros_like(t)
        largest = np.log(total) / NORM + s.max() - t.min() + self.log_largest
        outputs, inputs = self.importance * np.exp(2 * t), self.power * np.exp(-2 * s)
        power = float(factor * np.exp(2 * largest) * outputs.sum() * inputs.sum())
        by_inputs = 2 * power * (rows / total - inputs / inputs.sum())
        by_outputs = 2 * power * (outputs / outputs.sum() - columns / total)
        return power, by_inputs, by_outputs

    def _of_rows(self, s: np.ndarray, t: np.ndarray, factor: float) -> tuple[float, np.ndarray, np.ndarray]:
        """A grid for the weights of each output channel, on which its own scale has no influence."""
        up = np.exp(NORM * (s - s.max()))
        columns = np.einsum("gij,gi->gj", self.norms, up)
        alive = columns > 0
        squares = np.zeros_like(columns)
        squares[alive] = np.exp(2 * (np.log(columns[alive]) / NORM + s.max() + self.log_largest))
        inputs = self.power * np.exp(-2 * s)
        terms = factor * self.importance * squares
        power = float(terms.sum() * inputs.sum())
        shares = np.divide(terms, columns, out=np.zeros_like(terms), where=alive)
        by_inputs = (
            2 * inputs.sum() * np.einsum("gij,gj->gi", self.norms, shares) * up - 2 * power * inputs / inputs.sum()
        )
        return power, by_inputs, np.zeros_like(t)


def _layers(groups: Sequence[EqualizationGroup]) -> list[Step]:
    """Every layer of a group, once."""
    found = {step.name: step for group in groups for step in (group.producer, *group.consumers)}
    return list(found.values())


def _layer(
    step: Step, kernel: np.ndarray, channels: Mapping[str, LayerChannels], producers: Mapping[str, str]
) -> _Layer:
    own = channels[step.name]
    groups = getattr(step.layer, "groups", 1)
    places = int(np.prod(kernel.shape[:-2]))
    # Group g of the filters reads group g of the channels.
    matrix = np.abs(kernel).reshape(places, -1, groups, kernel.shape[-1] // groups).transpose(0, 2, 1, 3)
    largest = matrix.max()
    importance = _floored(own.importance, own.deviation).reshape(groups, -1)
    least = LEAST_RANGE * channels[producers[step.name]].deviation if step.name in producers else np.zeros(1)
    ranges = np.maximum(own.range, least)
    # A channel that is the same everywhere, 0 or not, needs no more than a logarithm.
    ranges = np.where(ranges > 0, ranges, max(float(ranges.max()), 1.0) * 1e-6)
    power = np.maximum(own.power, np.square(LEAST_RANGE * ranges))
    return _Layer(
        step.name,
        np.log(ranges),
        places * power.reshape(groups, -1),
        importance,
        np.einsum("kgij,gj->gi", np.square(matrix), importance),
        (matrix.max(axis=0) / largest) ** NORM if largest > 0 else np.zeros(matrix.shape[1:]),
        float(np.log(largest)) if largest > 0 else 0.0,
    )


def _floored(importance: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """No channel goes without importance.

    The floor is a share of what channels do to the outputs, so that their scales make no difference.
    """
    share = importance * np.square(deviation)
    least = LEAST_IMPORTANCE * share.mean()
    if least == 0:
        return np.ones_like(importance)
    return np.where(deviation > 0, np.maximum(share, least) / np.square(np.where(deviation > 0, deviation, 1)), 0)


def _norm(logs: np.ndarray) -> float:
    """The logarithm of the 20-norm of values that are given by their logarithms."""
    top = logs.max()
    return float(np.log(np.exp(NORM * (logs - top)).sum()) / NORM + top)
