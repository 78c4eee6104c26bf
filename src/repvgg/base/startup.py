"""What frameworks and the C library have to be told before they start."""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from functools import cache

ONEDNN = "TF_ENABLE_ONEDNN_OPTS"
OPENMP = "OMP_WAIT_POLICY"

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -2, -4, -8
"""Numbers of glibc's `malloc.h`."""

_MALLOC = {
    # A heap of a thread's own is unmapped as soon as it is empty, which no threshold prevents: one heap for all.
    _M_ARENA_MAX: 1,
    # Activations above 32 MiB would be mapped and zeroed anew at every step; that is the largest M_MMAP_THRESHOLD.
    _M_MMAP_MAX: 0,
    _M_TRIM_THRESHOLD: 2**31 - 1,
    _M_TOP_PAD: 2**28,
}

_tensorflow_was_first = False


def set_environment() -> None:
    """Sets what frameworks read once, while they are imported; called when this package is, and imports none itself.

    TensorFlow is to use oneDNN on every x86 processor. By itself it does so only where there is AVX-512 VNNI, and
    trains two to three times slower on the others. PyTorch's threads are to sleep while they wait for each other, and
    not to spin: where another process takes one of two cores away, that makes a step several times faster, and on an
    idle machine no slower. (docs/speed.md has the figures.) Whoever has set a variable is left their choice.
    """
    global _tensorflow_was_first  # noqa: PLW0603 - as the variables, a fact of the process
    os.environ.setdefault(OPENMP, "PASSIVE")
    if ONEDNN in os.environ:
        return
    if "tensorflow" in sys.modules:
        _tensorflow_was_first = True
    else:
        os.environ[ONEDNN] = "1"


def warn_without_onednn(has_onednn: Callable[[], bool]) -> None:
    """Says, once a process, that TensorFlow was imported before this package and has no oneDNN on this processor.

    Args:
        has_onednn: whether it does; asked only where it may not.
    """
    # macOS's builds have no oneDNN to switch on.
    if _tensorflow_was_first and sys.platform != "darwin" and not has_onednn():
        _warn_once()


@cache
def _warn_once() -> None:
    warnings.warn(
        "TensorFlow was imported before repvgg and runs without oneDNN, which makes training two to three times "
        f"slower on this processor: import repvgg first, or set {ONEDNN}=1 before Python starts.",
        stacklevel=4,
    )


@cache
def keep_memory() -> None:
    """Has the C library keep the memory that a training step frees, for the next one; for the rest of the process.

    glibc gives it back to the kernel, which zeroes every page of it again at the next step. (docs/speed.md has what
    that costs.) Only glibc is told, and only where nobody has settings or an allocator of their own. Threads that ran
    before keep their heaps, so the command line calls this before it starts a framework.
    """
    taken = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")
    if not sys.platform.startswith("linux") or any(name.startswith(taken) for name in os.environ):
        return
    library = ctypes.CDLL(None)
    # musl and others have no such call.
    if hasattr(library, "gnu_get_libc_version"):
        for option, value in _MALLOC.items():
            library.mallopt(option, value)
