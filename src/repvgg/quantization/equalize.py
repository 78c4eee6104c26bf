"""Cross-layer equalization: the same function, with channels that use a common range.

A grid of 256 points is laid over a whole tensor. Where one channel reaches to 100 and another to 1, the second has two
or three points left.
"""

from typing import Any

import numpy as np

from repvgg.errors import VerificationError
from repvgg.quantization.channels import layer_channels
from repvgg.quantization.least_noise import least_noise_scales
from repvgg.quantization.links import Link, Weights, find_links, input_ranges, output_ranges
from repvgg.quantization.steps import Steps, copied
from repvgg.runners.keras import KerasRunner
from repvgg.verification import verify

RTOL = 1e-5
"""Scales are computed in float64, and weights stored in float32: one rounding of each, over some dozen layers."""

ROUNDS = 50
SETTLED = 1e-3


def equalize(model: Any, images: np.ndarray | None = None, *, per_channel: bool = True) -> Any:
    """A copy of a deployed model in which the ranges of channels are in balance. The function does not change.

    With images the scales are those with which rounding makes the least noise in the network's answers, told by what
    the channels are like on these images: `least_noise.py` says how.

    Without images only weights are looked at (Nagel et al., "Data-Free Quantization Through Weight Equalization and
    Bias Correction", ICCV 2019): each channel i of a link gets s_i = sqrt(r1_i / r2_i), with r1 the largest weight that
    makes it and r2 the largest that reads it, until nothing moves.

    Args:
        images: (N, H, W, C), prepared, as for calibration.
        per_channel: with images: whether the weights of each output channel will have a grid of their own.

    Raises:
        VerificationError: if the copy's answers differ.
    """
    equalized = copied(model)
    steps = Steps(equalized)
    links, weights = find_links(steps), Weights(steps)
    if images is None or not links:
        _balance_weights(links, weights)
    else:
        scales = least_noise_scales(links, weights, layer_channels(steps, images), per_channel=per_channel)
        for link in links:
            weights.rescale(link, scales[link.producer.name])
    weights.store()
    # Compiling takes longer than the few images do.
    before, after = (KerasRunner(network, compiled=False) for network in (model, equalized))
    report = verify(before, after, rtol=RTOL)
    if not report.passed:
        raise VerificationError(f"Equalization changed the network, which it must not: {report.summary()}")
    return equalized


def _balance_weights(links: list[Link], weights: Weights) -> None:
    for _ in range(ROUNDS):
        moved = 0.0
        for link in links:
            made = output_ranges(weights.kernels[link.producer.name])
            read = np.max([input_ranges(one, weights.kernels[one.name]) for one in link.absorbers], axis=0)
            # A channel that is never made or never read has no range to be balanced.
            alive = (made > 0) & (read > 0)
            scales = np.sqrt(np.where(alive, made, 1) / np.where(alive, read, 1))
            weights.rescale(link, scales)
            moved = max(moved, float(np.abs(np.log(scales)).max()))
        if moved < SETTLED:
            break
