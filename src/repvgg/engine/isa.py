"""What a processor offers: width and number of its vector registers, and how LLVM is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from repvgg.base.dependencies import require
from repvgg.base.errors import InputError, UnknownNameError
from repvgg.base.processor import imitated


def binding() -> Any:
    """The binding of LLVM that llvmlite is.

    Raises:
        MissingDependencyError: if llvmlite is not installed.
    """
    return require("llvmlite.binding", extra="engine", purpose="Compiling networks")


@dataclass(frozen=True)
class Isa:
    """An instruction set, as far as generated code depends on it.

    Attributes:
        name: 'avx512', 'avx2', 'neon' or 'sse'.
        triple: LLVM's name of architecture, system and object format.
        cpu: LLVM's name of the processor.
        features: what it has and has not, in LLVM's notation.
        lanes: float32 values in a vector register.
        registers: vector registers.
        fma: whether a multiplication and an addition are one instruction.
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    fma: bool = True

    @property
    def is_x86(self) -> bool:
        """Whether x86's own instructions may be named."""
        return self.triple.startswith("x86_64")

    @property
    def is_linux(self) -> bool:
        """Whether threads can sleep on a futex."""
        return "linux" in self.triple

    @property
    def is_apple(self) -> bool:
        """Whether it is for macOS."""
        return "-apple-" in self.triple


SETS: Mapping[str, tuple[int, int, bool]] = {
    "sse": (4, 16, False),
    "neon": (4, 32, True),
    "avx2": (8, 16, True),
    "avx512": (16, 32, True),
}
"""Lanes, registers and fused multiply-add of each instruction set; x86's in ascending order."""

PROCESSORS: Mapping[str, tuple[str, str, str, str]] = {
    "x86-64-v2": ("sse", "x86_64-unknown-linux-gnu", "x86-64-v2", ""),
    "x86-64-v3": ("avx2", "x86_64-unknown-linux-gnu", "x86-64-v3", ""),
    "x86-64-v4": ("avx512", "x86_64-unknown-linux-gnu", "x86-64-v4", ""),
    "armv8-a": ("neon", "aarch64-unknown-linux-gnu", "generic", "+neon"),
    "apple-x86-64-v3": ("avx2", "x86_64-apple-macosx11.0.0", "x86-64-v3", ""),
    "apple-m1": ("neon", "arm64-apple-macosx11.0.0", "apple-m1", ""),
}
"""Kinds of processors code can be written for without being on one."""


def isa_for(processor: str) -> Isa:
    """The instruction set of a kind of processor, by its name in `PROCESSORS`.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if processor not in PROCESSORS:
        raise UnknownNameError("processor", processor, PROCESSORS)
    name, triple, cpu, features = PROCESSORS[processor]
    return Isa(name, triple, cpu, features, *SETS[name])


def host_isa(max_isa: str | None = None) -> Isa:
    """The instruction set of this machine.

    Args:
        max_isa: use no more than this one ('avx2' or 'avx512'), even if there is more; if None, what the variable
            `REPVGG_PROCESSOR` says, or all.

    Raises:
        InputError: if this machine has no fused multiply-add, or `max_isa` is not for it.
    """
    llvm = binding()
    triple = llvm.get_process_triple()
    features = dict(llvm.get_host_cpu_features())
    cpu = llvm.get_host_cpu_name()
    if triple.startswith(("aarch64", "arm64")):
        name = "neon"
        known = ["neon"]
    elif triple.startswith("x86_64"):
        known = ["avx2", "avx512"]
        if not (features.get("avx2") and features.get("fma")):
            raise InputError(
                f"This processor ({cpu}) has no fused multiply-add (AVX2 and FMA), which the engine is made of. "
                "Use another format here, such as .onnx."
            )
        name = "avx512" if all(features.get(f"avx512{part}") for part in ("f", "vl", "dq", "bw")) else "avx2"
    else:
        raise InputError(f"The engine writes code for x86-64 and arm64; this is {triple.split('-')[0]}.")
    max_isa = max_isa or (imitated() if "avx2" in known else None)
    if max_isa is not None:
        if max_isa not in known:
            raise UnknownNameError("instruction set for this processor", max_isa, known)
        name = min(name, max_isa, key=known.index)
    if name == "avx2":
        features = {feature: has and not feature.startswith("avx512") for feature, has in features.items()}
    flat = ",".join(f"{'+' if has else '-'}{feature}" for feature, has in sorted(features.items()))
    return Isa(name, triple, cpu, flat, *SETS[name])
