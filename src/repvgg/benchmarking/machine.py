"""The machine that figures belong to, and what else it did meanwhile."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from repvgg.base.words import counted
from repvgg.benchmarking.figures import Spread

_CPUINFO = Path("/proc/cpuinfo")

_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
"""Of a processor's flags those that decide the speed of convolutions."""

_SWITCHES = {
    "TF_ENABLE_ONEDNN_OPTS": "1",
    **dict.fromkeys(
        ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "XLA_FLAGS", "REPVGG_PROCESSOR", "OMP_NUM_THREADS"), ""
    ),
}
"""Variables that change what the runtimes use of the processor, and the value that changes nothing here."""

_PACKAGES = ("keras", "tensorflow", "jax", "torch", "onnxruntime", "openvino", "ai-edge-litert", "repvgg")

_QUIET = 0.05
"""Of a core: less than this is what any system does."""

_IDLE = ("idle", "iowait", "guest", "guest_nice")
"""Fields of the times of all cores in which nobody calculates, or which other fields contain already."""


@dataclass(frozen=True)
class Machine:
    """Attributes:
    processor: its name.
    instructions: the sets it has, of those that matter here.
    switches: environment variables that change what is used of them.
    """

    processor: str
    instructions: tuple[str, ...]
    cores: int
    memory_gb: float
    system: str
    python: str
    versions: dict[str, str] = field(default_factory=dict)
    switches: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        sets = f" ({', '.join(self.instructions)})" if self.instructions else ""
        switches = "".join(f", {name}={value}" for name, value in self.switches.items())
        return f"{self.processor}{sets}, {counted(self.cores, 'core')}{switches}"


def this_machine() -> Machine:
    """The machine this runs on."""
    name, flags = _processor()
    return Machine(
        processor=name,
        instructions=tuple(one for one in _INSTRUCTIONS if one in flags),
        cores=available_cores(),
        memory_gb=round(psutil.virtual_memory().total / 2**30, 1),
        system=platform.platform(),
        python=platform.python_version(),
        versions={package: number for package in _PACKAGES if (number := _version(package)) is not None},
        switches={name: os.environ[name] for name, usual in _SWITCHES.items() if os.environ.get(name, usual) != usual},
    )


def available_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> tuple[str, set[str]]:
    if not _CPUINFO.exists():
        return platform.processor() or platform.machine(), set()
    lines = [line.partition(":") for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()]
    values = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    flags = set(values.get("flags", values.get("Features", "")).split())
    return values.get("model name") or platform.machine(), flags


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True)
class ForeignLoad:
    """What others did on the machine meanwhile, in cores that they kept busy.

    Attributes:
        cores: by round; others are all processes but this one, and what a virtual machine's host took for itself.
    """

    rounds: tuple[float, ...]

    @property
    def cores(self) -> Spread:
        """Over the rounds."""
        return Spread.of(self.rounds)

    @property
    def heavy(self) -> bool:
        """Whether it was enough to make the figures doubtful."""
        return self.cores.median > _QUIET or max(self.rounds) > 4 * _QUIET

    def __str__(self) -> str:
        busy = f"Other processes kept {self.cores.median:.2f} cores busy meanwhile (at most {max(self.rounds):.2f})"
        return (
            f"{busy}: figures are too low, most of all where threads wait for each other. Measure again alone."
            if self.heavy
            else f"{busy}."
        )


def read_times() -> tuple[float, float, float]:
    """Seconds on the clock, of all cores at work, and of this process."""
    total = psutil.cpu_times()._asdict()
    own = psutil.Process().cpu_times()
    busy = sum(seconds for name, seconds in total.items() if name not in _IDLE)
    return time.perf_counter(), busy, own.user + own.system


class LoadMeter:
    """Measures foreign load, round by round."""

    def __init__(self, read: Callable[[], tuple[float, float, float]] = read_times) -> None:
        self._read = read
        self._last = read()
        self._rounds: list[float] = []

    def end_round(self) -> None:
        """A round has ended, and the next begins."""
        now = self._read()
        wall, busy, own = (later - earlier for later, earlier in zip(now, self._last, strict=True))
        # The system counts in hundredths of a second, so a short round may come out a little below zero.
        self._rounds.append(max(0.0, busy - own) / wall if wall > 0 else 0.0)
        self._last = now

    def load(self) -> ForeignLoad:
        """What was measured."""
        return ForeignLoad(tuple(self._rounds))
