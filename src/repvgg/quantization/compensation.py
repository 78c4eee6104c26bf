"""Rounding weights so that their errors cancel on real inputs.

A kernel is rounded one input at a time, and what an input's rounding does to the outputs is made up for, as far as the
inputs are correlated, by the weights of the inputs that are still to come. The result lies on the same 8-bit grid as
with rounding to the nearest point, and comes closer to the layer's outputs. The order and the update are those of
Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023.
"""

from collections.abc import Iterator

import keras
import numpy as np

from repvgg.quantization.rounding import LEVELS, weight_scales
from repvgg.quantization.steps import Step, Tensor, batches, kernel_of
from repvgg.runners.keras import to_numpy

ROWS_PER_INPUT = 4
MIN_ROWS = 4096
"""Patches of a layer's input that are looked at: some times as many as a kernel has inputs, and never few."""

DAMPING = 0.01
"""Share of the mean diagonal that is added to it: inputs that never vary must not be trusted to make up for others."""

BLOCK = 128
"""Inputs whose updates are applied to the rest at once."""


def compensated_weights(step: Step, inputs: Tensor, *, per_channel: bool) -> np.ndarray:
    """The layer's kernel on its 8-bit grid, rounded for the `inputs` that it gets."""
    kernel = kernel_of(step.layer)
    scales = weight_scales(kernel, per_channel=per_channel)
    columns = kernel.shape[-1]
    groups = getattr(step.layer, "groups", 1)
    kernels = np.split(kernel.reshape(-1, columns), groups, axis=1)
    grids = np.split(np.broadcast_to(scales.reshape(-1), (columns,)), groups)
    moments = _second_moments(step, inputs, groups)
    # The largest weight stays, for it is what a quantizer finds the grid by.
    largest = np.split((np.abs(kernel) >= LEVELS * scales * (1 - 1e-9)).reshape(-1, columns), groups, axis=1)
    parts = [_round(*group) for group in zip(kernels, grids, moments, largest, strict=True)]
    return np.concatenate(parts, axis=1).reshape(kernel.shape)


def _round(kernel: np.ndarray, scales: np.ndarray, moment: np.ndarray, fixed: np.ndarray) -> np.ndarray:
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
            value = np.clip(np.round(left[index] / scales), -LEVELS, LEVELS) * scales
            value = np.where(fixed[order[index]], kernel[order[index]], value)
            rounded[order[index]] = value
            errors[index - start] = (left[index] - value) / factor[index, index]
            left[index + 1 : end] -= np.outer(factor[index, index + 1 : end], errors[index - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return rounded


def _second_moments(step: Step, inputs: Tensor, groups: int) -> list[np.ndarray]:
    """For each group, the mean of x x^T over the patches that the layer reads."""
    totals: list[np.ndarray] = []
    count = 0
    for rows in _patches(step, inputs):
        parts = np.split(rows, groups, axis=2)
        found = [part.reshape(len(part), -1) for part in parts]
        products = [(part.T @ part).astype(np.float64) for part in found]
        totals = [total + product for total, product in zip(totals, products, strict=True)] if totals else products
        count += len(rows)
    return [total / count for total in totals]


def _patches(step: Step, inputs: Tensor) -> Iterator[np.ndarray]:
    """Some of the layer's input patches, (rows, k * k, C), a few images at a time."""
    layer = step.layer
    if isinstance(layer, keras.layers.Dense):
        rows = to_numpy(inputs)
        yield rows.reshape(-1, 1, rows.shape[-1])
        return
    generator = np.random.default_rng(0)
    channels = inputs.shape[-1]
    wanted = max(MIN_ROWS, ROWS_PER_INPUT * int(np.prod(layer.kernel.shape[:-1])))
    for part in batches(inputs, 4):
        patches = to_numpy(
            keras.ops.image.extract_patches(
                part, layer.kernel_size, layer.strides, layer.dilation_rate, padding=layer.padding
            )
        )
        rows = patches.reshape(-1, patches.shape[-1])
        share = max(1, wanted * len(part) // len(inputs))
        chosen = generator.permutation(len(rows))[:share]
        yield rows[chosen].reshape(len(chosen), -1, channels)
