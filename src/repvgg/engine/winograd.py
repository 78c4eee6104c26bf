"""Minimal filtering F(m, 3): exact matrices, for stride 1 and, in polyphase form, for stride 2.

With them m outputs y of a row of inputs d under a kernel g of three taps are AT [(G g) * (BT d)]: n products instead of
3m. Used along both axes, an m x m tile takes n x n products instead of 9 m x m. Toom and Cook's construction: each
product is the value of a polynomial at one point (Winograd 1980; Lavin and Gray, arXiv 1509.09308).
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np

Rows = tuple[tuple[Fraction, ...], ...]

POINTS: tuple[Fraction, ...] = tuple(map(Fraction, ("0", "1", "-1", "2", "-2", "1/2", "-1/2")))
"""Points in the order in which a larger tile takes more of them; pairs +-a share their arithmetic."""


@dataclass(frozen=True)
class Transform:
    """The matrices of one tile size along one axis.

    Attributes:
        m: outputs.
        stride: of the convolution.
        at: (m, n), from products to outputs.
        g: (n, 3), from taps to factors.
        bt: (n, n), from inputs to factors.
        pairs: rows of `bt` and `g` (columns of `at`) that belong to points a and -a.
    """

    m: int
    stride: int
    at: Rows
    g: Rows
    bt: Rows
    pairs: tuple[tuple[int, int], ...]

    @property
    def n(self) -> int:
        """Inputs read, and products."""
        return len(self.bt)

    def kernels(self, kernel: np.ndarray) -> np.ndarray:
        """G g G^T of kernels (3, 3, ...) in their own precision: (n * n, ...)."""
        g = np.array([[float(x) for x in row] for row in self.g], kernel.dtype)
        both = np.einsum("ia,jb->ijab", g, g).reshape(self.n * self.n, 9)
        flat: np.ndarray = (both @ kernel.reshape(9, -1)).reshape(self.n * self.n, *kernel.shape[2:])
        return flat


@cache
def transform(m: int, stride: int = 1) -> Transform:
    """F(m, 3) for this stride.

    With stride 2, output i reads inputs 2i, 2i + 1, 2i + 2: the even ones under taps 0 and 2 are F(m, 2), the odd ones
    under tap 1 are m plain products. So 2m + 1 products do instead of 3m.
    """
    if stride == 1:
        at, g, bt, pairs = _cook_toom(m, 3)
        return Transform(m, 1, at, g, bt, pairs)
    at, g, bt, pairs = _cook_toom(m, 2)
    zero, one = Fraction(0), Fraction(1)
    n = 2 * m + 1
    odd_at = tuple((*row, *(one if i == j else zero for j in range(m))) for i, row in enumerate(at))
    odd_g = (*((row[0], zero, row[1]) for row in g), *(((zero, one, zero),) * m))
    even_bt = tuple(tuple(row[i // 2] if i % 2 == 0 else zero for i in range(n)) for row in bt)
    odd_bt = tuple(tuple(one if i == 2 * j + 1 else zero for i in range(n)) for j in range(m))
    return Transform(m, 2, odd_at, odd_g, even_bt + odd_bt, pairs)


def _product(a: list[Fraction], b: list[Fraction]) -> list[Fraction]:
    out = [Fraction(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def _cook_toom(m: int, taps: int) -> tuple[Rows, Rows, Rows, tuple[tuple[int, int], ...]]:
    """AT, G, BT of F(m, taps) from the first m + taps - 2 points and infinity, and the pairs among the points."""
    n = m + taps - 1
    points = list(POINTS[: n - 1])
    at = [[point**i for point in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    g, bt = [], []
    for index, point in enumerate(points):
        scale, row = Fraction(1), [Fraction(1)]
        for other in points[:index] + points[index + 1 :]:
            scale *= point - other
            row = _product(row, [-other, Fraction(1)])
        sign = -1 if scale < 0 else 1
        g.append([sign * point**j / scale for j in range(taps)])
        bt.append([sign * c for c in row] + [Fraction(0)])
    row = [Fraction(1)]
    for point in points:
        row = _product(row, [-point, Fraction(1)])
    g.append([Fraction(int(j == taps - 1)) for j in range(taps)])
    bt.append(row)
    pairs = tuple((i, points.index(-p)) for i, p in enumerate(points) if p > 0 and -p in points)
    return _rows(at), _rows(g), _rows(bt), pairs


def _rows(matrix: list[list[Fraction]]) -> Rows:
    return tuple(tuple(row) for row in matrix)
