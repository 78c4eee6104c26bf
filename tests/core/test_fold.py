"""Folding against direct convolution, in float64: what is left is rounding, some 1e-16 an operation."""

from typing import Any

import keras
import numpy as np
import pytest
from scipy.signal import correlate2d  # type: ignore[import-untyped]

from helpers import Array, convolve, normalize, relative_error, to_numpy
from repvgg.core import fold

TOLERANCE = 1e-13
every_group = pytest.mark.parametrize("groups", [1, 2, 4])


def random_norm(rng: np.random.Generator, channels: int) -> fold.BatchNorm:
    return fold.BatchNorm(
        gamma=rng.uniform(0.5, 1.5, channels),
        beta=rng.normal(0, 0.3, channels),
        mean=rng.normal(0, 0.3, channels),
        variance=rng.uniform(0.3, 3, channels),
        epsilon=1e-5,
    )


def apply_norm(images: Array, norm: fold.BatchNorm) -> Array:
    return normalize(images, norm.gamma, norm.beta, norm.mean, norm.variance, norm.epsilon)


def apply_linear(images: Array, linear: fold.Linear, **options: int) -> Array:
    result: Array = convolve(images, linear.kernel, **options) + linear.bias
    return result


def test_the_reference_convolution_is_scipys(rng: np.random.Generator) -> None:
    images, kernel = rng.normal(size=(1, 7, 8, 3)), rng.normal(size=(3, 3, 3, 2))
    expected = sum(correlate2d(images[0, :, :, i], kernel[:, :, i, 1], mode="same") for i in range(3))
    assert relative_error(expected, convolve(images, kernel)[0, :, :, 1]) < TOLERANCE
    assert relative_error(expected[::2, ::2], convolve(images, kernel, strides=2)[0, :, :, 1]) < TOLERANCE


@every_group
@pytest.mark.parametrize("strides", [1, 2])
def test_a_convolution_and_its_normalization(rng: np.random.Generator, groups: int, strides: int) -> None:
    images, kernel, norm = rng.normal(size=(2, 9, 8, 8)), rng.normal(size=(3, 3, 8 // groups, 12)), random_norm(rng, 12)
    expected = apply_norm(convolve(images, kernel, strides, groups), norm)
    folded = apply_linear(images, fold.fold_batch_norm(kernel, norm), strides=strides, groups=groups)
    assert relative_error(expected, folded) < TOLERANCE


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("strides", [1, 2])
def test_a_pointwise_kernel_in_a_larger_ones_centre(rng: np.random.Generator, size: int, strides: int) -> None:
    images, kernel = rng.normal(size=(2, 8, 9, 4)), rng.normal(size=(1, 1, 4, 6))
    expanded = fold.expand_kernel(kernel, size)
    assert expanded.shape == (size, size, 4, 6)
    assert relative_error(convolve(images, kernel, strides), convolve(images, expanded, strides)) < TOLERANCE


@every_group
def test_the_identity_kernel_returns_its_input(rng: np.random.Generator, groups: int) -> None:
    images = rng.normal(size=(1, 5, 6, 8))
    kernel = fold.identity_kernel(8, groups)
    assert kernel.shape == (3, 3, 8 // groups, 8)
    np.testing.assert_array_equal(convolve(images, kernel, groups=groups), images)


@every_group
def test_normalization_alone(rng: np.random.Generator, groups: int) -> None:
    images, norm = rng.normal(size=(2, 5, 6, 8)), random_norm(rng, 8)
    folded = apply_linear(images, fold.fold_identity(norm, 8, groups), groups=groups)
    assert relative_error(apply_norm(images, norm), folded) < TOLERANCE


@every_group
def test_three_branches_are_one_convolution(rng: np.random.Generator, groups: int) -> None:
    images = rng.normal(size=(2, 7, 8, 8))
    dense, point = rng.normal(size=(3, 3, 8 // groups, 8)), rng.normal(size=(1, 1, 8 // groups, 8))
    norms = [random_norm(rng, 8) for _ in range(3)]
    expected = (
        apply_norm(convolve(images, dense, groups=groups), norms[0])
        + apply_norm(convolve(images, point, groups=groups), norms[1])
        + apply_norm(images, norms[2])
    )
    small = fold.fold_batch_norm(point, norms[1])
    folded = fold.add_branches(
        [
            fold.fold_batch_norm(dense, norms[0]),
            fold.Linear(fold.expand_kernel(small.kernel, 3), small.bias),
            fold.fold_identity(norms[2], 8, groups),
        ]
    )
    assert relative_error(expected, apply_linear(images, folded, groups=groups)) < TOLERANCE


def test_nothing_is_calculated_below_float64(rng: np.random.Generator) -> None:
    dense = fold.fold_batch_norm(rng.normal(size=(3, 3, 4, 4)), random_norm(rng, 4))
    linear = fold.add_branches([dense, fold.fold_identity(random_norm(rng, 4), 4, groups=1)])
    assert linear.kernel.dtype == linear.bias.dtype == np.float64


@pytest.mark.backends
@every_group
def test_the_same_arithmetic_on_tensors(rng: np.random.Generator, groups: int) -> None:
    """Float32 tensors of the current backend; 1e-6 is some ten of their roundings."""

    def tensor(array: Any) -> Any:
        return keras.ops.convert_to_tensor(array, dtype="float32")

    kernel, point = rng.normal(size=(3, 3, 8 // groups, 8)), rng.normal(size=(1, 1, 8 // groups, 8))
    norm = random_norm(rng, 8)
    gamma, beta, mean, variance = map(tensor, (norm.gamma, norm.beta, norm.mean, norm.variance))
    on_backend = fold.BatchNorm(gamma, beta, mean, variance, norm.epsilon)
    pairs = [
        (fold.fold_batch_norm(kernel, norm), fold.fold_batch_norm(tensor(kernel), on_backend)),
        (fold.fold_identity(norm, 8, groups), fold.fold_identity(on_backend, 8, groups, convert=tensor)),
    ]
    for expected, found in pairs:
        assert relative_error(expected.kernel, found.kernel) < 1e-6
        assert relative_error(expected.bias, found.bias) < 1e-6
    expanded = to_numpy(fold.expand_kernel(tensor(point), 3, tensor))
    assert relative_error(fold.expand_kernel(point, 3), expanded) < 1e-6
