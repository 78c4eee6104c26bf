"""One-dimensional Winograd transforms of vectors, with the arithmetic of pairs of points shared."""

from collections.abc import Sequence
from fractions import Fraction

from repvgg.engine.ir import Function, Value
from repvgg.engine.winograd import Rows

Pairs = Sequence[tuple[int, int]]


def combine(f: Function, coefficients: Sequence[Fraction], values: Sequence[Value]) -> Value:
    """The linear combination; terms with coefficient 1 come first, because they need no multiplication."""
    terms = [(float(c), value) for c, value in zip(coefficients, values, strict=True) if c != 0]
    if not terms:
        return "zeroinitializer"
    terms.sort(key=lambda term: (term[0] != 1, abs(term[0]) != 1))
    first, total = terms[0]
    if first != 1:
        total = f.fmul(f.splat(first), total)
    for c, value in terms[1:]:
        if abs(c) == 1:
            total = f.fadd(total, value) if c == 1 else f.fsub(total, value)
        else:
            total = f.fma(f.splat(c), value, total)
    return total


def apply(f: Function, rows: Rows, pairs: Pairs, values: Sequence[Value]) -> list[Value]:
    """The matrix times the values, where rows of a pair agree but for signs: even and odd parts are made once."""
    out: dict[int, Value] = {}
    zero = Fraction(0)
    for i, j in pairs:
        a, b = rows[i], rows[j]
        even = [x if x == y else zero for x, y in zip(a, b, strict=True)]
        odd = [x if x == -y else zero for x, y in zip(a, b, strict=True)]
        if any(x + y != z for x, y, z in zip(even, odd, a, strict=True)) or not any(even) or not any(odd):
            continue
        e, o = combine(f, even, values), combine(f, odd, values)
        out[i], out[j] = f.fadd(e, o), f.fsub(e, o)
    for i, row in enumerate(rows):
        if i not in out:
            out[i] = combine(f, row, values)
    return [out[i] for i in range(len(rows))]


def apply_columns(f: Function, rows: Rows, pairs: Pairs, values: Sequence[Value]) -> list[Value]:
    """The matrix times the values, where columns of a pair are the powers of a and -a: their sum and difference do."""
    sums = {i: f.fadd(values[i], values[j]) for i, j in pairs}
    differences = {i: f.fsub(values[i], values[j]) for i, j in pairs}
    second = {j for _, j in pairs}
    out = []
    for power, row in enumerate(rows):
        kept = [k for k in range(len(row)) if k not in second]
        parts = sums if power % 2 == 0 else differences
        out.append(combine(f, [row[k] for k in kept], [parts.get(k, values[k]) for k in kept]))
    return out
