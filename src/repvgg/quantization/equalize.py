"""Cross-layer equalization: the same function, with channels that use a common range.

A grid of 256 points is laid over a whole tensor. Where one channel goes up to 100 and another to 1, the second has two
or three points left.
"""

from typing import Any

import keras
import numpy as np

from repvgg.base.errors import VerificationError
from repvgg.base.processor import LEVELS
from repvgg.quantization.channels import layer_channels
from repvgg.quantization.equalization_groups import (
    EqualizationGroup,
    Weights,
    by_input,
    find_equalization_groups,
    input_ranges,
    output_ranges,
)
from repvgg.quantization.noise_optimal import noise_optimal_scales
from repvgg.quantization.steps import Step, Steps, batches, copied
from repvgg.runners.keras import KerasRunner, to_numpy
from repvgg.verification import verify

RTOL = 1e-5
"""Scales are computed in float64, and weights stored in float32: one rounding of each, over some dozen layers."""

ROUNDS = 50
SETTLED = 1e-3

ACTIVATION_SHARE = 0.75
"""How far activations are evened out at the cost of weights. Between 0.5 and 1 little depends on it."""


def equalize(model: Any, images: np.ndarray | None = None, *, per_channel: bool = True, levels: int = LEVELS) -> Any:
    """A copy of a deployed model in which the ranges of channels are in balance. The function does not change.

    With images the equalization is noise-optimal: the scales are those with which rounding adds the least noise to the
    network's outputs, as measured on these images (`noise_optimal.py`).

    Channel attention is not part of that noise model. Where there is any, activations are evened out instead:
    s_i = a_i^0.75 / r2_i^0.25, with a_i the largest value of a channel (the rule is that of Xiao et al., "SmoothQuant",
    ICML 2023; there for language models).

    Without images only weights are looked at (Nagel et al., "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019): each channel i of a group gets s_i = sqrt(r1_i / r2_i), with r1 the largest weight of
    the output channel and r2 the largest of that input channel in its consumers, until nothing moves.

    Args:
        images: (N, H, W, C), prepared, as for calibration.
        per_channel, levels: with images: whether the weights of each output channel will have a grid of their own, and
            with how many steps from 0 to the largest.

    Raises:
        VerificationError: if the copy's answers differ.
    """
    equalized = copied(model)
    steps = Steps(equalized)
    groups, weights = find_equalization_groups(steps), Weights(steps)
    if images is None or not groups:
        _balance_weights(groups, weights)
    elif any(isinstance(step.layer, keras.layers.Multiply) for step in steps.steps):
        # Noise of the attention's own path is not in the model in `noise_optimal.py`.
        _balance_activations(groups, weights, channel_ranges(steps, images))
    else:
        scales = noise_optimal_scales(
            groups, weights, layer_channels(steps, images), per_channel=per_channel, levels=levels
        )
        for group in groups:
            weights.rescale(group, scales[group.producer.name])
    weights.store()
    # Compiling takes longer than the few images do.
    before, after = (KerasRunner(network, compiled=False) for network in (model, equalized))
    report = verify(before, after, rtol=RTOL)
    if not report.passed:
        raise VerificationError(f"Equalization changed the network, which it must not: {report.summary()}")
    return equalized


def _balance_weights(groups: list[EqualizationGroup], weights: Weights) -> None:
    for _ in range(ROUNDS):
        moved = 0.0
        for group in groups:
            outputs = output_ranges(weights.kernels[group.producer.name])
            inputs = np.max([input_ranges(one, weights.kernels[one.name]) for one in group.consumers], axis=0)
            # A channel of which all weights are 0 on one side has no range to be balanced.
            alive = (outputs > 0) & (inputs > 0)
            scales = np.sqrt(np.where(alive, outputs, 1) / np.where(alive, inputs, 1))
            weights.rescale(group, scales)
            moved = max(moved, float(np.abs(np.log(scales)).max()))
        if moved < SETTLED:
            break


def _balance_activations(groups: list[EqualizationGroup], weights: Weights, ranges: dict[str, np.ndarray]) -> None:
    for group in groups:
        largest = ranges[group.producer.name]
        inputs = np.max(
            [_relative_input_ranges(one, weights.kernels[one.name], largest) for one in group.consumers], axis=0
        )
        weights.rescale(group, _activation_scales(largest, inputs))


def channel_ranges(steps: Steps, images: np.ndarray) -> dict[str, np.ndarray]:
    """The largest value, without its sign, of each channel (C,) of what every convolution and dense layer gives."""
    found: dict[str, np.ndarray] = {}
    for part in batches(images):
        for step, outputs in steps.run(part):
            if step.weighted:
                values = to_numpy(outputs)
                largest = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0).astype(np.float64)
                found[step.name] = np.maximum(found.get(step.name, 0), largest)
    return found


def _relative_input_ranges(consumer: Step, kernel: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """How large the weights of each input channel (C,) are beside those of the same output channel.

    Output channels have grids of their own, so each is measured by the most that one of its inputs contributes.
    """
    contributions = (np.abs(kernel) * by_input(consumer, largest)).reshape(-1, kernel.shape[-1]).max(axis=0)
    return input_ranges(consumer, kernel / np.where(contributions > 0, contributions, np.inf))


def _activation_scales(largest: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """s_i = a_i^0.75 / r_i^0.25. As r_i is measured in 1 / a, no channel goes beyond 1 afterwards."""
    alive = (largest > 0) & (inputs > 0)
    if not alive.any():
        return np.ones_like(largest)
    scales = np.ones_like(largest)
    scales[alive] = largest[alive] ** ACTIVATION_SHARE / inputs[alive] ** (1 - ACTIVATION_SHARE)
    scales[~alive] = np.exp(np.log(scales[alive]).mean())
    # A channel that is always 0 on these images, or that nobody reads, goes where the others are.
    silent, unread = (largest == 0) & (inputs > 0), (largest > 0) & (inputs == 0)
    scales[silent] = np.median((inputs * scales)[alive]) / inputs[silent]
    scales[unread] = largest[unread] / np.median((largest / scales)[alive])
    return scales
