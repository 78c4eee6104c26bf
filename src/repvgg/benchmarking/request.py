"""What is asked for, checked before any framework starts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from repvgg.base.errors import InputError
from repvgg.base.words import counted
from repvgg.benchmarking.machine import available_cores
from repvgg.benchmarking.networks import DEFAULT, Entry, Network, NetworkFile, find_entries
from repvgg.benchmarking.runtimes import FLOAT, RUNTIMES, Runtime, get_runtimes
from repvgg.runners import RUNNERS

SIZE = 224
"""Pixels a side, where neither the caller nor a file says another."""

COPIES = 4.0
"""Of the weights in memory, for each runtime: the file's, another layout of them, and what writing leaves behind."""


@dataclass(frozen=True)
class Request:
    """Checked: every name exists, every file is there, every number makes sense."""

    entries: tuple[Entry, ...]
    runtimes: tuple[Runtime, ...]
    batch: int
    size: int | None
    threads: int | None
    rounds: int

    @property
    def cores(self) -> int:
        """Threads that each runtime gets: as many as were chosen, or as there are cores."""
        return self.threads or available_cores()

    @property
    def needs_keras(self) -> bool:
        """Whether anything runs in Keras's backend, or has to be built with it."""
        return any(isinstance(entry, Network) or entry.in_keras for entry in self.entries)

    @property
    def runs_keras(self) -> bool:
        """Whether anything is timed in Keras's backend."""
        named = any(isinstance(entry, Network) for entry in self.entries)
        in_keras = any(isinstance(entry, NetworkFile) and entry.in_keras for entry in self.entries)
        return in_keras or (named and any(runtime.target is None for runtime in self.runtimes))


def checked_request(
    networks: Sequence[str | Path] = (),
    runtimes: Sequence[str] = (),
    *,
    int8: bool = False,
    batch: int = 1,
    size: int | None = None,
    threads: int | None = None,
    rounds: int = 10,
) -> Request:
    """The request, if it can be carried out. Imports no framework.

    Raises:
        InputError: for names, files or numbers that do not fit, and networks that need more memory than there is.
    """
    entries = find_entries(networks or DEFAULT, [ending for ending in RUNNERS if ending.startswith(".")])
    for name, value in (("batch", batch), ("size", size), ("threads", threads), ("rounds", rounds)):
        if value is not None and value < 1:
            raise InputError(f"`{name}` must be at least 1. Received: {value}.")
    cores = available_cores()
    if threads is not None and threads > cores:
        raise InputError(f"`threads` (={threads}) is more than the {counted(cores, 'core')} this process may use.")
    if size is not None and size < 32:
        raise InputError(f"`size` (={size}) is below 32 pixels, which the stages of these networks halve five times.")
    names = list(runtimes or FLOAT)
    if int8:
        names += [f"{name}-int8" for name in names if f"{name}-int8" in RUNTIMES and f"{name}-int8" not in names]
    chosen = get_runtimes(names) if any(isinstance(entry, Network) for entry in entries) else []
    _require_memory(entries, chosen)
    return Request(tuple(entries), tuple(chosen), batch, size, threads, rounds)


def _require_memory(entries: Sequence[Entry], runtimes: Sequence[Runtime]) -> None:
    """All contestants are in memory at once: they could not take turns otherwise."""
    weights = sum(4 * entry.parameters for entry in entries if isinstance(entry, Network))
    needed, free = COPIES * weights * len(runtimes), psutil.virtual_memory().available
    if needed > free:
        raise InputError(
            f"These networks in {len(runtimes)} runtimes need about {needed / 2**30:.0f} GB of memory at once, and "
            f"{free / 2**30:.0f} GB are free. Name fewer networks, or fewer runtimes."
        )
