"""The plain form of a plan, in NumPy: every layer by its definition. Slow, and as exact as its precision."""

from collections.abc import Mapping

import numpy as np

from repvgg.engine.plan import INPUT, Convolution, Dense, GlobalAverage, Plan


def compute(plan: Plan, images: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs for images (N, H, W, C), in the images' precision."""
    values: dict[str, np.ndarray] = {INPUT: images}
    last_use = {layer.source: index for index, layer in enumerate(plan.layers)}
    kept = set(plan.outputs.values())
    with np.errstate(all="ignore"):
        for index, layer in enumerate(plan.layers):
            read = values[layer.source]
            if isinstance(layer, GlobalAverage):
                values[layer.name] = read.mean(axis=(1, 2))
            elif isinstance(layer, Dense):
                product = read @ layer.kernel.astype(read.dtype) + layer.bias.astype(read.dtype)
                values[layer.name] = activate(layer.activation, product)
            else:
                values[layer.name] = convolve(layer, read)
            if last_use.get(layer.source) == index and layer.source not in kept:
                del values[layer.source]
    return {output: values[name] for output, name in plan.outputs.items()}


def convolve(layer: Convolution, images: np.ndarray) -> np.ndarray:
    """A convolution and what follows it."""
    count, height, width, _ = images.shape
    down, across = layer.size(height, width)
    top, left, bottom, right = layer.pads
    padded = np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kernel = layer.kernel.astype(images.dtype)
    total = np.broadcast_to(layer.bias.astype(images.dtype), (count, down, across, layer.channels)).copy()
    for y in range(kernel.shape[0]):
        for x in range(kernel.shape[1]):
            first_y, first_x = y * layer.dilations[0], x * layer.dilations[1]
            pixels = padded[
                :,
                first_y : first_y + layer.strides[0] * (down - 1) + 1 : layer.strides[0],
                first_x : first_x + layer.strides[1] * (across - 1) + 1 : layer.strides[1],
            ]
            total += _tap(pixels, kernel[y, x], layer.groups)
    attention = layer.attention
    if attention is not None and attention.position == "after_activation":
        total = activate(layer.activation, total)
    if attention is not None:
        mean = total.mean(axis=(1, 2))
        hidden = activate("relu", mean @ attention.down.astype(mean.dtype) + attention.down_bias.astype(mean.dtype))
        factors = hidden @ attention.up.astype(mean.dtype) + attention.up_bias.astype(mean.dtype)
        total *= activate("sigmoid", factors)[:, None, None]
        if attention.position == "after_activation":
            return total
    return activate(layer.activation, total)


def _tap(pixels: np.ndarray, matrix: np.ndarray, groups: int) -> np.ndarray:
    """(N, H, W, C) times one tap's (C / groups, filters)."""
    depth, filters = matrix.shape
    product: np.ndarray
    if groups == 1:
        # Rows of one matrix, which is what BLAS is fast with.
        product = np.ascontiguousarray(pixels).reshape(-1, depth) @ matrix
    elif depth == 1 and filters == groups:
        product = pixels * matrix[0]
    else:
        grouped = pixels.reshape(*pixels.shape[:3], groups, depth)
        matrices = matrix.reshape(depth, groups, filters // groups)
        product = np.einsum("nhwgc,cgk->nhwgk", grouped, matrices, optimize=True)
    return product.reshape(*pixels.shape[:3], filters)


def activate(kind: str, values: np.ndarray) -> np.ndarray:
    """An activation; not a number stays so."""
    if kind == "relu":
        values = np.maximum(values, 0)
    if kind == "sigmoid":
        values = 1 / (1 + np.exp(-values))
    if kind == "softmax":
        values = np.exp(values - values.max(axis=-1, keepdims=True))
        values = values / values.sum(axis=-1, keepdims=True)
    return values


def relative_error(got: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest difference of any output from what is expected, relative to that output's largest value."""
    errors = [0.0]
    for name, values in expected.items():
        scale = float(np.abs(values).max()) or 1.0
        errors.append(float(np.abs(got[name] - values).max()) / scale)
    return max(errors)
