"""The micro-kernel: a block of a matrix product whose sums stay in registers.

Rows are read number by number and broadcast, columns as vectors. A block of `rows` x `vectors` sums takes
rows x vectors fused multiply-adds for rows + vectors loads; its size is what the registers hold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from repvgg.engine.ir import Function, Index, Value
from repvgg.engine.isa import Isa

UNROLL = 4
LINE = 16
"""float32 values in a cache line."""


@dataclass(frozen=True)
class Prefetch:
    """Cache lines that are asked for during a product, because they are needed next.

    Attributes:
        pointer: the first one.
        lines: how many in every `UNROLL` steps of the depth.
    """

    pointer: Value
    lines: int


def multiply(
    f: Function,
    base: Value,
    offsets: Sequence[int],
    weights: Value,
    depth: int,
    sums: list[list[Value]],
    prefetch: Prefetch | None = None,
    unroll: int = UNROLL,
) -> list[list[Value]]:
    """Adds the product of rows and weights to `sums`, and returns the new ones.

    Args:
        f: the function that is being written.
        base: what all rows are near.
        offsets: of each row from `base`; its numbers follow one another.
        weights: (depth, vectors * lanes), aligned to vectors.
        depth: length of the rows.
        sums: values, by row and vector.
        prefetch: lines to ask for on the way, in every `unroll` steps.
        unroll: steps that are written one after the other.
    """
    vectors = len(sums[0])
    width = vectors * f.lanes

    def steps(k: Index, count: int, values: list[Value]) -> list[Value]:
        now = [values[r * vectors : (r + 1) * vectors] for r in range(len(offsets))]
        block = f.at(weights, f.multiply(k, width))
        row = f.at(base, k)
        for step in range(count):
            columns = [f.load(f.at(block, step * width + v * f.lanes), 4 * f.lanes) for v in range(vectors)]
            for r, offset in enumerate(offsets):
                value = f.broadcast(f.at(row, offset + step))
                now[r] = [f.fma(value, column, total) for column, total in zip(columns, now[r], strict=True)]
        return [value for r in now for value in r]

    def turn(k: Index, values: list[Value]) -> list[Value]:
        if prefetch is not None:
            here = f.at(prefetch.pointer, f.multiply(k, prefetch.lines * LINE // unroll))
            for line in range(prefetch.lines):
                f.prefetch(f.at(here, line * LINE))
        return steps(k, unroll, values)

    flat = [value for row in sums for value in row]
    whole = depth - depth % unroll
    if whole:
        flat = f.loop(0, whole, unroll, turn, [(f.vector, value) for value in flat])
    if depth > whole:
        flat = steps(whole, depth - whole, flat)
    return [flat[r * vectors : (r + 1) * vectors] for r in range(len(offsets))]


def block_product(
    name: str, isa: Isa, rows: int, vectors: int, depth: int, row_stride: int, *, add: bool, lines: int
) -> str:
    """A function C = A B, or C += A B: A (rows, depth) with a stride, B (depth, columns), C (rows, columns) dense.

    Args:
        name: its symbol.
        isa: the instruction set.
        rows: of A and C.
        vectors: columns of B and C, in vectors.
        depth: columns of A.
        row_stride: between the rows of A.
        add: whether C is added to.
        lines: cache lines to prefetch in every `UNROLL` steps, from a fourth argument on.
    """
    arguments = [("ptr", "%a"), ("ptr", "%b"), ("ptr", "%c"), ("ptr", "%next")]
    f = Function(name, arguments, isa)
    places = [[(r * vectors + v) * f.lanes for v in range(vectors)] for r in range(rows)]
    if add:
        sums = [[f.load(f.at("%c", place), 4 * f.lanes) for place in row] for row in places]
    else:
        sums = [["zeroinitializer"] * vectors for _ in range(rows)]
    offsets = [r * row_stride for r in range(rows)]
    sums = multiply(f, "%a", offsets, "%b", depth, sums, Prefetch("%next", lines) if lines else None)
    for row, values in zip(places, sums, strict=True):
        for place, value in zip(row, values, strict=True):
            f.store(value, f.at("%c", place), 4 * f.lanes)
    return f.text()
