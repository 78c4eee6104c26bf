"""What a program is collected in: functions, each written once, and the phases in their order."""

from collections.abc import Callable

from repvgg.engine.ir import Function, Value
from repvgg.engine.isa import Isa
from repvgg.engine.layout import ARGUMENTS, Phase, Place


class Module:
    """A program that is being written.

    Attributes:
        isa: the instruction set.
        constants: where each packed array is, by its key.
        functions: text of each function, by its symbol.
        phases: of the layers so far.
        scratch: memory of each thread's own.
        number: of the next phase; also of those that another one calls.
        shared: memory that the phases of one layer hand results on in.
    """

    def __init__(self, isa: Isa, constants: dict[str, Place], scratch: Place, shared: Place) -> None:
        self.isa = isa
        self.constants = constants
        self.functions: dict[str, str] = {}
        self.phases: list[Phase] = []
        self.scratch = scratch
        self.shared = shared
        self.number = 0

    def share(self, symbol: str, write: Callable[[str], str]) -> str:
        """The symbol of a function that several callers need; it is written for the first."""
        if symbol not in self.functions:
            self.functions[symbol] = ""
            self.functions[symbol] = write(symbol)
        return symbol

    def phase(self, layer: str, tasks: int, write: Callable[[Function], None]) -> None:
        """A phase; `write` fills its function, in which `ARGUMENTS` may be used."""
        symbol = f"phase_{self.number}"
        self.number += 1
        f = Function(symbol, ARGUMENTS, self.isa)
        write(f)
        self.functions[symbol] = f.text()
        self.phases.append(Phase(symbol, tasks, layer))


def activate(f: Function, kind: str, value: Value) -> Value:
    """An activation of a vector. What is not a number stays so, and infinity becomes so.

    A transform may overflow where the direct form does not. If an activation cut that off, nobody would see it; so it
    goes on as NaN, which nothing cuts off, to all outputs that depend on it.
    """
    if kind == "relu":
        # The order of operands is that of MAXPS: the second one, where one of them is not a number.
        return marked(f, value, f.choose("ogt", "zeroinitializer", value))
    if kind == "sigmoid":
        falling = exponential(f, f.op(f"fneg {f.vector} {value}"))
        return f.op(f"fdiv {f.vector} {f.splat(1)}, {f.fadd(f.splat(1), falling)}")
    return value


def marked(f: Function, value: Value, result: Value) -> Value:
    """The result, or NaN where the value it was made from is not finite: zero times that is not zero."""
    return f.fma(value, f.splat(0), result)


_TERMS = (1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0)
_LOG2_HIGH, _LOG2_LOW = 0.693359375, -2.12194440e-4
"""Two parts of log 2; the first has so few digits that its multiples are exact (Cephes)."""
_ROUND = 12582912.0
"""1.5 * 2^23: after adding it, the last bits of a float32 are the nearest whole number."""


def exponential(f: Function, value: Value) -> Value:
    """E to the power of a vector: 2^n times a polynomial of the rest, at most 2 units in the last place off.

    Of what is not finite it is NaN.
    """
    original = value
    value = f.choose("olt", f.splat(88.0), value)
    value = f.choose("ogt", f.splat(-87.0), value)
    shifted = f.fma(value, f.splat(1.4426950408889634), f.splat(_ROUND))
    power = f.fsub(shifted, f.splat(_ROUND))
    rest = f.fma(power, f.splat(-_LOG2_HIGH), value)
    rest = f.fma(power, f.splat(-_LOG2_LOW), rest)
    total = f.splat(_TERMS[0])
    for term in _TERMS[1:]:
        total = f.fma(total, rest, f.splat(term))
    bits = f.op(f"bitcast {f.vector} {shifted} to {f.integers}")
    moved = f.op(f"shl {f.integers} {bits}, {f.splat_integer(23)}")
    whole = f.op(f"bitcast {f.vector} {total} to {f.integers}")
    power = f.op(f"bitcast {f.integers} {f.op(f'add {f.integers} {whole}, {moved}')} to {f.vector}")
    return marked(f, original, power)
