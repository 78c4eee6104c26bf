"""The scales of channels with which eight bits make the least noise in the network's answers.

A channel i of what one layer makes and others read may be divided by s_i (`links.py`). The noise that a layer adds is
then, with rounding errors that are independent and even within a step:

    of what it reads:   A^2 / (12 * 255^2) * sum_j g_j sum_i w_ij^2 s_i^2,          A = max_i a_i / s_i
    of its weights:     M^2 / (12 * n^2) * sum_j g_j t_j^2 * sum_i k^2 x_i / s_i^2,   M = max_ij |w_ij| s_i / t_j

with s the scales of its inputs and t those of its outputs, a_i the reach and x_i the mean square of an input, w_ij^2
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
from repvgg.quantization.links import Link, Weights
from repvgg.quantization.steps import Step

NORM = 20.0

ACTIVATION_STEPS = 255

WEIGHT_SHARE = 0.25
"""What is left of the noise of weights after rounding that makes up for itself; a quarter is 6 dB."""

ITERATIONS = 3000

SILENT, UNHEARD = 0.1, 1e-3
"""What a channel counts for at least: a reach of so many standard deviations before its activation, for it may speak on
other images; and such a share of the others' mean importance."""


def least_noise_scales(
    links: Sequence[Link],
    weights: Weights,
    channels: Mapping[str, LayerChannels],
    *,
    per_channel: bool,
    levels: int = LEVELS,
) -> dict[str, np.ndarray]:
    """What each link's channels (C,) are to be divided by, by the producer's name.

    They are such that the farthest of each link's channels reaches to 1.

    Args:
        per_channel: whether each output channel's weights have a grid of their own.
        levels: its steps from 0 to the largest weight.
    """
    makers = {absorber.name: link.producer.name for link in links for absorber in link.absorbers}
    layers = [_layer(step, weights.kernels[step.name], channels, makers) for step in _layers(links)]
    places: dict[str, slice] = {}
    end = 0
    for link in links:
        start, end = end, end + link.producer.layer.kernel.shape[-1]
        places[link.producer.name] = slice(start, end)
    reach: dict[str, np.ndarray] = {}
    for layer in layers:
        if layer.name in makers:
            known = reach.get(makers[layer.name], layer.log_reach)
            reach[makers[layer.name]] = np.maximum(known, layer.log_reach)
    first = np.concatenate([reach[name] for name in places])

    def noise(logs: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = 0.0, np.zeros_like(logs)
        for layer in layers:
            read, made = places.get(makers.get(layer.name, "")), places.get(layer.name)
            found = layer.noise(
                np.zeros(layer.inputs) if read is None else logs[read],
                np.zeros(layer.outputs) if made is None else logs[made],
                per_channel=per_channel,
                levels=levels,
            )
            total += found.power
            if read is not None:
                slope[read] += found.by_read
            if made is not None:
                slope[made] += found.by_made
        return float(np.log(total)), slope / total

    result = scipy.optimize.minimize(
        noise, first, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS, "ftol": 1e-12, "gtol": 1e-7}
    )
    scales = {}
    for name, place in places.items():
        logs = result.x[place]
        scales[name] = np.exp(logs + (reach[name] - logs).max())
    return scales


@dataclass(frozen=True)
class _Noise:
    """A power, and its derivative by the logarithms of the scales of what is read and of what is made."""

    power: float
    by_read: np.ndarray
    by_made: np.ndarray


@dataclass(frozen=True)
class _Layer:
    """A layer's numbers, in groups: matrices are (groups, C / groups, F / groups).

    Attributes:
        log_reach: (C,).
        power: (groups, C / groups), the sum over the k x k places.
        importance: (groups, F / groups).
        reads: (groups, C / groups), sum_j g_j w_ij^2.
        norms: |w|^20, the largest made 1.
        log_largest: the logarithm of the largest weight.
    """

    name: str
    log_reach: np.ndarray
    power: np.ndarray
    importance: np.ndarray
    reads: np.ndarray
    norms: np.ndarray
    log_largest: float

    @property
    def inputs(self) -> int:
        return int(self.power.size)

    @property
    def outputs(self) -> int:
        return int(self.importance.size)

    def noise(self, read: np.ndarray, made: np.ndarray, *, per_channel: bool, levels: int) -> _Noise:
        s, t = read.reshape(self.power.shape), made.reshape(self.importance.shape)
        inputs, inputs_slope = self._of_inputs(s)
        factor = WEIGHT_SHARE / (12 * levels**2)
        weights, by_read, by_made = (self._of_rows if per_channel else self._of_tensor)(s, t, factor)
        return _Noise(inputs + weights, (inputs_slope + by_read).ravel(), by_made.ravel())

    def _of_inputs(self, s: np.ndarray) -> tuple[float, np.ndarray]:
        far = self.log_reach.reshape(s.shape) - s
        largest = _norm(far)
        terms = np.exp(2 * largest) / (12 * ACTIVATION_STEPS**2) * self.reads * np.exp(2 * s)
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
        made, read = self.importance * np.exp(2 * t), self.power * np.exp(-2 * s)
        power = float(factor * np.exp(2 * largest) * made.sum() * read.sum())
        by_read = 2 * power * (rows / total - read / read.sum())
        by_made = 2 * power * (made / made.sum() - columns / total)
        return power, by_read, by_made

    def _of_rows(self, s: np.ndarray, t: np.ndarray, factor: float) -> tuple[float, np.ndarray, np.ndarray]:
        """A grid for the weights of each output channel, on which its own scale has no influence."""
        up = np.exp(NORM * (s - s.max()))
        columns = np.einsum("gij,gi->gj", self.norms, up)
        alive = columns > 0
        squares = np.zeros_like(columns)
        squares[alive] = np.exp(2 * (np.log(columns[alive]) / NORM + s.max() + self.log_largest))
        read = self.power * np.exp(-2 * s)
        terms = factor * self.importance * squares
        power = float(terms.sum() * read.sum())
        shares = np.divide(terms, columns, out=np.zeros_like(terms), where=alive)
        by_read = 2 * read.sum() * np.einsum("gij,gj->gi", self.norms, shares) * up - 2 * power * read / read.sum()
        return power, by_read, np.zeros_like(t)


def _layers(links: Sequence[Link]) -> list[Step]:
    """Every layer that has to do with a link, once."""
    found = {step.name: step for link in links for step in (link.producer, *link.absorbers)}
    return list(found.values())


def _layer(step: Step, kernel: np.ndarray, channels: Mapping[str, LayerChannels], makers: Mapping[str, str]) -> _Layer:
    own = channels[step.name]
    groups = getattr(step.layer, "groups", 1)
    places = int(np.prod(kernel.shape[:-2]))
    # Group g of the filters reads group g of the channels.
    matrix = np.abs(kernel).reshape(places, -1, groups, kernel.shape[-1] // groups).transpose(0, 2, 1, 3)
    largest = matrix.max()
    importance = _heard(own.importance, own.deviation).reshape(groups, -1)
    silent = SILENT * channels[makers[step.name]].deviation if step.name in makers else np.zeros(1)
    reach = np.maximum(own.reach, silent)
    # A channel that is the same everywhere, 0 or not, needs no more than a logarithm.
    reach = np.where(reach > 0, reach, max(float(reach.max()), 1.0) * 1e-6)
    power = np.maximum(own.power, np.square(SILENT * reach))
    return _Layer(
        step.name,
        np.log(reach),
        places * power.reshape(groups, -1),
        importance,
        np.einsum("kgij,gj->gi", np.square(matrix), importance),
        (matrix.max(axis=0) / largest) ** NORM if largest > 0 else np.zeros(matrix.shape[1:]),
        float(np.log(largest)) if largest > 0 else 0.0,
    )


def _heard(importance: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """No channel without importance; told by what it does to the outputs, so that its scale makes no difference."""
    share = importance * np.square(deviation)
    least = UNHEARD * share.mean()
    if least == 0:
        return np.ones_like(importance)
    return np.where(deviation > 0, np.maximum(share, least) / np.square(np.where(deviation > 0, deviation, 1)), 0)


def _norm(logs: np.ndarray) -> float:
    """The logarithm of the 20-norm of values that are given by their logarithms."""
    top = logs.max()
    return float(np.log(np.exp(NORM * (logs - top)).sum()) / NORM + top)
