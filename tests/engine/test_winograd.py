"""The matrices of minimal filtering are exact."""

from fractions import Fraction

import numpy as np
import pytest

from repvgg.engine.winograd import Rows, transform


def times(rows: Rows, values: list[Fraction]) -> list[Fraction]:
    return [sum((a * b for a, b in zip(row, values, strict=True)), Fraction(0)) for row in rows]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("m", [2, 3, 4, 5, 6])
def test_a_row_of_outputs_in_exact_arithmetic(m: int, stride: int) -> None:
    matrices = transform(m, stride)
    assert matrices.n == (m + 2 if stride == 1 else 2 * m + 1)
    generator = np.random.default_rng(m)
    taps = [Fraction(int(x)) for x in generator.integers(-9, 10, 3)]
    inputs = [Fraction(int(x)) for x in generator.integers(-9, 10, matrices.n)]
    products = [a * b for a, b in zip(times(matrices.g, taps), times(matrices.bt, inputs), strict=True)]
    expected = [sum(tap * inputs[i * stride + k] for k, tap in enumerate(taps)) for i in range(m)]
    assert times(matrices.at, products) == expected


def test_fewer_products_than_the_definition() -> None:
    # 4/9 and 1/4 of the multiplications, as the paper counts them.
    assert transform(2).n ** 2 / (9 * 2 * 2) == pytest.approx(4 / 9)
    assert transform(4).n ** 2 / (9 * 4 * 4) == pytest.approx(1 / 4)


def test_kernels_are_transformed_along_both_axes() -> None:
    kernel = np.random.default_rng(0).standard_normal((3, 3, 2, 5))
    matrices = transform(4)
    g = np.array([[float(x) for x in row] for row in matrices.g])
    expected = np.einsum("ia,jb,abck->ijck", g, g, kernel).reshape(36, 2, 5)
    np.testing.assert_allclose(matrices.kernels(kernel), expected, rtol=1e-13, atol=1e-13)
