"""What eight bits do to numbers, in NumPy: the same grids as the runtimes' quantizers."""

import numpy as np

from repvgg.base.processor import LEVELS


def weight_scales(kernel: np.ndarray, *, per_channel: bool, levels: int = LEVELS) -> np.ndarray:
    """Step of the grid, for each output channel (the last axis) or one for all; 1 where all weights are 0.

    Args:
        levels: steps from 0 to the largest weight.
    """
    axes = tuple(range(kernel.ndim - 1)) if per_channel else tuple(range(kernel.ndim))
    largest = np.abs(kernel).max(axis=axes, keepdims=True)
    return np.where(largest > 0, largest, levels) / levels


def rounded_weights(kernel: np.ndarray, *, per_channel: bool, levels: int = LEVELS) -> np.ndarray:
    """The kernel with every weight moved to the nearest point of its grid.

    A quantizer that is given the result finds the same grid again and changes nothing.
    """
    scales = weight_scales(kernel, per_channel=per_channel, levels=levels)
    rounded: np.ndarray = np.round(kernel / scales) * scales
    return rounded


def rounded_activations(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values on the grid of 256 points from `low` to `high`, which holds 0 exactly; beyond it they are cut off."""
    low, high = min(low, 0.0), max(high, 0.0)
    if high == low:
        return np.zeros_like(values)
    scale = (high - low) / 255
    zero = round(-low / scale)
    codes = np.clip(np.round(values / scale) + zero, 0, 255)
    rounded: np.ndarray = ((codes - zero) * scale).astype(values.dtype)
    return rounded


def signal_to_noise(signal: np.ndarray, received: np.ndarray) -> float:
    """Power of the signal over that of the error, in dB; 6 dB are one bit. Infinite if nothing differs."""
    signal, received = signal.astype(np.float64), received.astype(np.float64)
    noise = float(np.square(signal - received).sum())
    power = float(np.square(signal).sum())
    if noise == 0:
        return np.inf
    return 10 * float(np.log10(power / noise)) if power > 0 else -np.inf
