"""What several test modules share: trained-like statistics, references written in NumPy, gradients on every backend."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from repvgg.models.random_statistics import randomize_statistics

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

BACKEND: str = keras.backend.backend()

SQUEEZE_EXCITE = {
    "none": None,
    "before": {"position": "before_activation", "reduction": 4},
    "after": {"position": "after_activation", "reduction": 2},
}


def trained_like(model: Any, seed: int = 0, *, gain: float = 1.0) -> Any:
    """Gives `model` statistics as training leaves them: fresh ones (mean 0, variance 1, gamma 1) hide most mistakes."""
    return randomize_statistics(model, seed, gain=gain)


def random_images(shape: Shape, seed: int = 1, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def to_numpy(tensor: Any) -> Array:
    value = tensor.value if isinstance(tensor, keras.Variable) else tensor
    return np.asarray(keras.ops.convert_to_numpy(value))


def values_of(layer: Any) -> list[Array]:
    """Copies of all weights, in order."""
    return [to_numpy(variable).copy() for variable in layer.weights]


def assert_same_values(before: Sequence[Array], after: Sequence[Array]) -> None:
    """Bit for bit."""
    assert len(before) == len(after)
    for first, second in zip(before, after, strict=True):
        np.testing.assert_array_equal(first, second, strict=True)


def relative_error(reference: Any, candidate: Any) -> float:
    """The largest difference over the largest reference value."""
    first, second = np.asarray(to_numpy(reference), "float64"), np.asarray(to_numpy(candidate), "float64")
    assert first.shape == second.shape
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    return float(np.abs(first - second).max() / np.abs(first).max())


def infer(model: Any, images: Any) -> Any:
    """`model` in inference mode, layer by layer; nothing is compiled for a single call."""
    tensor = keras.tree.map_structure(keras.ops.convert_to_tensor, images)
    return keras.tree.map_structure(lambda output: to_numpy(detached(output)), model(tensor, training=False))


def detached(tensor: Any) -> Any:
    return tensor.detach() if BACKEND == "torch" else tensor


def convolve(
    images: Array, kernel: Array, strides: int = 1, groups: int = 1, dilation_rate: int = 1, *, padded: bool = True
) -> Array:
    """Convolution in NumPy, (N, H, W, C) * (h, w, C / groups, O), symmetric zero padding: nobody's code but this."""
    rows, columns, width, filters = kernel.shape
    if padded:
        pads = [(dilation_rate * (side // 2),) * 2 for side in (rows, columns)]
        images = np.pad(images, ((0, 0), *pads, (0, 0)))
    count = len(images)
    height, side = (
        -(-(length - dilation_rate * (size - 1)) // strides)
        for length, size in zip(images.shape[1:3], (rows, columns), strict=True)
    )
    outputs = np.zeros((count, height, side, filters), np.result_type(images, kernel))
    per_group = filters // groups
    for row in range(rows):
        for column in range(columns):
            top, left = row * dilation_rate, column * dilation_rate
            bottom, right = top + (height - 1) * strides + 1, left + (side - 1) * strides + 1
            pixels = images[:, top:bottom:strides, left:right:strides]
            for group in range(groups):
                read = slice(group * width, (group + 1) * width)
                write = slice(group * per_group, (group + 1) * per_group)
                outputs[..., write] += pixels[..., read] @ kernel[row, column, :, write]
    return outputs


def normalize(images: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """Batch normalization in NumPy."""
    result: Array = (images - mean) / np.sqrt(variance + epsilon) * gamma + beta
    return result


def gradients(function: Callable[[], Any], variables: Sequence[Any]) -> list[Array]:
    """d function() / d variable of Keras variables on the current backend; zeros where nothing flows."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        values = [variable.value for variable in variables]
        with tf.GradientTape() as tape:
            loss = function()
        found = tape.gradient(loss, values, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return [np.asarray(gradient) for gradient in found]
    if BACKEND == "jax":
        import jax

        def stateless(values: list[Any]) -> Any:
            with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
                return function()

        return [np.asarray(gradient) for gradient in jax.grad(stateless)([variable.value for variable in variables])]
    import torch

    found = torch.autograd.grad(function(), [variable.value for variable in variables], allow_unused=True)
    return [
        np.zeros(variable.shape) if gradient is None else gradient.numpy()
        for gradient, variable in zip(found, variables, strict=True)
    ]


def run_python(code: str, *arguments: object) -> str:
    """Runs `code` in a fresh Python on the current backend; its standard output. A crash or error fails the test."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent / "src"), os.environ.get("PYTHONPATH", "")]
    finished = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "KERAS_BACKEND": BACKEND, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, f"exit status {finished.returncode}\n{finished.stderr[-3000:]}"
    return finished.stdout


def small_network(**options: Any) -> Any:
    """A classifier of 5 classes with 7 blocks, 8 to 64 channels wide; two of the blocks have an identity branch."""
    from repvgg.models.model import RepVGG

    settings: dict[str, Any] = {"num_blocks": [1, 2, 2, 1], "width_multiplier": [0.125] * 4, "num_classes": 5}
    return RepVGG(**{**settings, **options})
