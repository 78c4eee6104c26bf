"""Functions in LLVM's intermediate language, written instruction by instruction.

A value is the text that stands for it: '%v12', or a number. Pointers count in float32 unless said otherwise.
"""

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from repvgg.engine.isa import Isa

Value = str
Index = int | str


class Function:
    """A function that is being written.

    Attributes:
        name: its symbol.
        lanes: values in a vector.
        vector: the vector's type.
    """

    def __init__(self, name: str, arguments: Sequence[tuple[str, str]], isa: Isa, *, inline: bool = False) -> None:
        self.name = name
        self.arguments = arguments
        self.isa = isa
        self.lanes = isa.lanes
        self.vector = f"<{isa.lanes} x float>"
        self.integers = f"<{isa.lanes} x i32>"
        self.attributes = "alwaysinline" if inline else "noinline"
        self.lines: list[str] = []
        self.count = 0
        self.block = "entry"

    def name_value(self) -> Value:
        """A name for a new value."""
        self.count += 1
        return f"%v{self.count}"

    def op(self, expression: str) -> Value:
        """The value of an instruction."""
        value = self.name_value()
        self.lines.append(f"  {value} = {expression}")
        return value

    def do(self, instruction: str) -> None:
        """An instruction without a value."""
        self.lines.append(f"  {instruction}")

    def start_block(self, label: str) -> None:
        """What follows is in a new basic block."""
        self.lines.append(f"{label}:")
        self.block = label

    def new_label(self, prefix: str = "b") -> str:
        """A label for a new basic block."""
        self.count += 1
        return f"{prefix}{self.count}"

    def at(self, pointer: Value, index: Index, kind: str = "float") -> Value:
        """The address of an element."""
        return pointer if index in (0, "0") else self.op(f"getelementptr inbounds {kind}, ptr {pointer}, i64 {index}")

    def add(self, a: Index, b: Index) -> Index:
        """A sum of integers; constants are added here."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if 0 in (a, b):
            return b if a == 0 else a
        return self.op(f"add nsw i64 {a}, {b}")

    def multiply(self, a: Index, b: Index) -> Index:
        """A product of integers; constants are multiplied here."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if 0 in (a, b):
            return 0
        if 1 in (a, b):
            return b if a == 1 else a
        return self.op(f"mul nsw i64 {a}, {b}")

    def divide(self, a: Index, b: int) -> tuple[Index, Index]:
        """Quotient and remainder of a not negative integer by a constant."""
        if isinstance(a, int):
            return divmod(a, b)
        if b == 1:
            return a, 0
        quotient = self.op(f"udiv i64 {a}, {b}")
        return quotient, self.op(f"sub nsw i64 {a}, {self.op(f'mul nsw i64 {quotient}, {b}')}")

    def least(self, a: Index, b: Index) -> Index:
        """The smaller of two not negative integers."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.op(f"call i64 @llvm.umin.i64(i64 {a}, i64 {b})")

    def load(self, pointer: Value, align: int = 4) -> Value:
        """A vector."""
        return self.op(f"load {self.vector}, ptr {pointer}, align {align}")

    def store(self, value: Value, pointer: Value, align: int = 4) -> None:
        """Stores a vector."""
        self.do(f"store {self.vector} {value}, ptr {pointer}, align {align}")

    def broadcast(self, pointer: Value) -> Value:
        """One number in all lanes."""
        return self.splat_of(self.op(f"load float, ptr {pointer}, align 4"))

    def splat_of(self, scalar: Value) -> Value:
        """A scalar value in all lanes."""
        one = self.op(f"insertelement {self.vector} poison, float {scalar}, i32 0")
        return self.op(f"shufflevector {self.vector} {one}, {self.vector} poison, <{self.lanes} x i32> zeroinitializer")

    def splat(self, constant: float) -> Value:
        """A constant vector."""
        return "zeroinitializer" if constant == 0 else f"splat (float {number(constant)})"

    def splat_integer(self, constant: int) -> Value:
        """A constant vector of integers."""
        return f"splat (i32 {constant})"

    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """A * b + c, rounded once where the processor can."""
        if not self.isa.fma:
            return self.fadd(self.fmul(a, b), c)
        kind = f"v{self.lanes}f32"
        return self.op(f"call {self.vector} @llvm.fma.{kind}({self.vector} {a}, {self.vector} {b}, {self.vector} {c})")

    def fadd(self, a: Value, b: Value) -> Value:
        """A + b."""
        return self.op(f"fadd {self.vector} {a}, {b}")

    def fsub(self, a: Value, b: Value) -> Value:
        """A - b."""
        return self.op(f"fsub {self.vector} {a}, {b}")

    def fmul(self, a: Value, b: Value) -> Value:
        """A * b."""
        return self.op(f"fmul {self.vector} {a}, {b}")

    def choose(self, condition: str, a: Value, b: Value) -> Value:
        """Lane by lane a where 'fcmp' with this condition of (a, b) holds, else b."""
        mask = self.op(f"fcmp {condition} {self.vector} {a}, {b}")
        return self.op(f"select <{self.lanes} x i1> {mask}, {self.vector} {a}, {self.vector} {b}")

    def prefetch(self, pointer: Value) -> None:
        """Asks for the cache line of an address; the panels of wide vectors are too large for the first cache."""
        level = 2 if self.lanes > 8 else 3
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {level}, i32 1)")

    def prefetch_to_write(self, pointer: Value) -> None:
        """Asks for the cache line of an address, and that other cores give it up.

        Stores go out one after the other, so each would wait for a line that is in memory or in another core's cache.
        """
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 1, i32 3, i32 1)")

    def loop(
        self,
        start: Index,
        end: Index,
        step: int,
        body: Callable[[Index, list[Value]], Sequence[Value] | None],
        carried: Sequence[tuple[str, Value]] = (),
    ) -> list[Value]:
        """A loop that runs at least once: `body(index, values)` gives the next values; the last ones are returned.

        Args:
            carried: (type, first value) of what goes from one turn to the next.
        """
        if isinstance(start, int) and isinstance(end, int) and end - start <= step:
            return list(body(start, [value for _, value in carried]) or [])
        before, label, done = self.block, self.new_label("loop"), self.new_label("done")
        self.do(f"br label %{label}")
        self.start_block(label)
        index, following = self.name_value(), self.name_value()
        values = [self.name_value() for _ in carried]
        place = len(self.lines)
        new = list(body(index, values) or [])
        self.do(f"{following} = add nsw nuw i64 {index}, {step}")
        again = self.op(f"icmp slt i64 {following}, {end}")
        self.do(f"br i1 {again}, label %{label}, label %{done}")
        phis = [f"  {index} = phi i64 [ {start}, %{before} ], [ {following}, %{self.block} ]"]
        for value, (kind, first), last in zip(values, carried, new, strict=True):
            phis.append(f"  {value} = phi {kind} [ {first}, %{before} ], [ {last}, %{self.block} ]")
        self.lines[place:place] = phis
        self.start_block(done)
        return new

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """What is written inside is done only if the condition (i1) holds."""
        inside, after = self.new_label("then"), self.new_label("after")
        self.do(f"br i1 {condition}, label %{inside}, label %{after}")
        self.start_block(inside)
        yield
        self.do(f"br label %{after}")
        self.start_block(after)

    def call(self, function: str, *arguments: str) -> None:
        """Calls a function that gives nothing back; arguments with their types."""
        self.do(f"call void @{function}({', '.join(arguments)})")

    def text(self) -> str:
        """The whole function."""
        arguments = ", ".join(f"{kind} {name}" for kind, name in self.arguments)
        return (
            f"define internal void @{self.name}({arguments}) {self.attributes} nounwind #0 {{\nentry:\n"
            + "\n".join(self.lines)
            + "\n  ret void\n}\n"
        )


def number(constant: float) -> str:
    """A float32 constant, exactly, as LLVM writes it."""
    (single,) = struct.unpack("<f", struct.pack("<f", constant))
    (bits,) = struct.unpack("<Q", struct.pack("<d", single))
    return f"0x{bits:016X}"


def declarations(isa: Isa) -> str:
    """What every module declares."""
    vector = f"<{isa.lanes} x float>"
    lines = [
        f"declare {vector} @llvm.fma.v{isa.lanes}f32({vector}, {vector}, {vector})",
        f"declare float @llvm.vector.reduce.fmax.v{isa.lanes}f32({vector})",
        f"declare float @llvm.vector.reduce.fadd.v{isa.lanes}f32(float, {vector})",
        "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)",
        "declare i64 @llvm.umin.i64(i64, i64)",
        'attributes #0 = { nounwind "min-legal-vector-width"="512" "prefer-vector-width"="512" }',
    ]
    return f'target triple = "{isa.triple}"\n' + "\n".join(lines) + "\n"
