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
    total = np.empty((count, down, across, layer.channels), images.dtype)
    reach = ((kernel.shape[0] - 1) * layer.dilations[0] + 1, (kernel.shape[1] - 1) * layer.dilations[1] + 1)
    for image, pixels in enumerate(padded):
        windows = np.lib.stride_tricks.sliding_window_view(pixels, reach, axis=(0, 1))
        windows = windows[:: layer.strides[0], :: layer.strides[1], :, :: layer.dilations[0], :: layer.dilations[1]]
        total[image] = _products(windows[:down, :across].transpose(0, 1, 3, 4, 2), kernel, layer.groups)
    total += layer.bias.astype(images.dtype)
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


def _products(windows: np.ndarray, kernel: np.ndarray, groups: int) -> np.ndarray:
    """What a kernel (height, width, C / groups, filters) makes of windows (H, W, height, width, C)."""
    down, across, high, wide, channels = windows.shape
    depth, filters = kernel.shape[2:]
    if groups == channels == filters:
        product: np.ndarray = np.einsum("hwijc,ijc->hwc", windows, kernel[:, :, 0], optimize=True)
        return product
    columns = []
    for group in range(groups):
        rows = windows[..., group * depth : (group + 1) * depth].reshape(down * across, high * wide * depth)
        some = kernel[..., group * (filters // groups) : (group + 1) * (filters // groups)]
        columns.append(rows @ some.reshape(high * wide * depth, -1))
    return np.concatenate(columns, axis=1).reshape(down, across, filters)


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
