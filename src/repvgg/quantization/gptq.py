"""Least-squares reconstruction and GPTQ rounding: weights for the inputs that a layer really gets.

Behind layers that calculate in eight bits a layer gets other inputs than it was trained for. Two things are done about
it, in this order:

- Least-squares reconstruction: its weights become those that come closest, on these inputs, to the outputs that it has
  in float32 (with a ridge towards the weights as they were). Inputs of which little but noise is left are trusted less,
  and what is left of them in others is used.
- GPTQ rounding: weights are rounded one input at a time, and the effect of an input's rounding on the outputs is
  compensated, as far as the inputs are correlated, by the weights of the inputs that are still to come. The result lies
  on the same grid as with rounding to the nearest point, and comes closer to the layer's outputs.

The order and the update of the second are those of Frantar et al., "GPTQ: Accurate Post-Training Quantization for
Generative Pre-trained Transformers", ICLR 2023. That the network in float32 is what to come close to, not the layer on
its own disturbed inputs, is the idea of Li et al., "GPTAQ: Efficient Finetuning-Free Quantization with Asymmetric
Calibration", ICML 2025; there it is part of the rounding.
"""

from collections.abc import Sequence

import numpy as np

from repvgg.quantization.moments import Moments
from repvgg.quantization.rounding import weight_scales
from repvgg.quantization.steps import Step

RIDGE = 0.1
"""How strongly weights are drawn to what they were, in shares of the mean variance of the inputs. Between 0.05 and 0.3
little depends on it; what calibration images do not show must not move."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to it: inputs that never vary must not compensate for others."""

BLOCK = 128
"""Inputs whose updates are applied to the rest at once."""


def least_squares_weights(step: Step, kernel: np.ndarray, moments: Sequence[Moments]) -> np.ndarray:
    """The kernel that gives, on the inputs that the layer receives, what `kernel` gives on those it should receive."""
    parts = _by_group(step, kernel)
    return np.concatenate(
        [_reconstruct(part, group) for part, group in zip(parts, moments, strict=True)], axis=1
    ).reshape(kernel.shape)


def gptq_weights(
    step: Step, kernel: np.ndarray, moments: Sequence[Moments], *, per_channel: bool, levels: int
) -> np.ndarray:
    """GPTQ rounding: the kernel on its grid, for the inputs that the layer receives."""
    scales = weight_scales(kernel, per_channel=per_channel, levels=levels)
    grids = np.split(np.broadcast_to(scales.reshape(-1), kernel.shape[-1:]), len(moments))
    # The largest weight stays, for it is what a quantizer finds the grid by.
    largest = _by_group(step, np.abs(kernel) >= levels * scales * (1 - 1e-9))
    parts = [
        _round(part, grid, levels, group.received, fixed)
        for part, grid, group, fixed in zip(_by_group(step, kernel), grids, moments, largest, strict=True)
    ]
    return np.concatenate(parts, axis=1).reshape(kernel.shape)


def _by_group(step: Step, kernel: np.ndarray) -> list[np.ndarray]:
    """The kernel as one matrix (inputs, outputs) for each group."""
    return np.split(kernel.reshape(-1, kernel.shape[-1]), getattr(step.layer, "groups", 1), axis=1)


def _reconstruct(kernel: np.ndarray, moments: Moments) -> np.ndarray:
    """The minimum over V of |y W - x V|^2 + ridge |V - W|^2, with x received and y wanted."""
    ridge = max(RIDGE * float(np.diag(moments.received).mean()), 1e-12)
    moved = moments.received + ridge * np.eye(len(kernel))
    reconstructed: np.ndarray = kernel + np.linalg.solve(moved, (moments.shared - moments.received) @ kernel)
    return reconstructed


def _round(kernel: np.ndarray, scales: np.ndarray, levels: int, moment: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """A kernel (inputs, outputs) rounded input after input, those with the largest second moment first.

    What is `fixed` stays as it is.
    """
    inputs = len(kernel)
    order = np.argsort(-np.diag(moment), kind="stable")
    moment = moment[np.ix_(order, order)]
    moment = moment + np.eye(inputs) * max(DAMPING * float(np.diag(moment).mean()), 1e-12)
    # Row i of this factor holds what the inputs from i on can do about an error at i.
    factor = np.linalg.cholesky(np.linalg.inv(moment)).T
    left, rounded = kernel[order].copy(), np.empty_like(kernel)
    for start in range(0, inputs, BLOCK):
        end = min(start + BLOCK, inputs)
        errors = np.empty((end - start, kernel.shape[1]))
        for index in range(start, end):
            value = np.clip(np.round(left[index] / scales), -levels, levels) * scales
            value = np.where(fixed[order[index]], kernel[order[index]], value)
            rounded[order[index]] = value
            errors[index - start] = (left[index] - value) / factor[index, index]
            left[index + 1 : end] -= np.outer(factor[index, index + 1 : end], errors[index - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return rounded
