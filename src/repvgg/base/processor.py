"""Kinds of processor, as far as the answers of networks in eight bits depend on them.

x86 processors before VNNI add up products of 8 bits in pairs, in 16 bits, and what does not fit is cut off (the
instruction `vpmaddubsw`). VNNI (`vpdpbusd`) and ARM add up in 32 bits.
"""

import os
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path

from repvgg.base.errors import InputError, ProcessorWarning, UnknownNameError

PORTABLE, VNNI, THIS = "portable", "vnni", "this"

PROCESSORS: Mapping[str, str] = {
    PORTABLE: "right on every processor: weights have 7 bits wherever products of 8 could overflow",
    VNNI: "weights of 8 bits everywhere, for processors that add up in 32 bits: x86 with VNNI, and ARM",
    THIS: "whichever of the two is right on this machine",
}
"""What an INT8 file can be made for."""

LEVELS = 127
"""Integers of weights with 8 bits are symmetric, -127 to 127, in ONNX Runtime, OpenVINO and LiteRT alike."""

SAFE_LEVELS = 64
"""Within -64 to 64 a pair of products with inputs from 0 to 255 is at most 32640, and 16 bits reach to 32767."""

CPU_DESCRIPTION = Path("/proc/cpuinfo")
"""Linux's. Other systems have none, and x86 processors are taken for the poorer kind there."""

VARIABLE = "REPVGG_PROCESSOR"
"""Where it is `avx2`, this machine passes for an x86 processor without AVX-512 and VNNI, as tests want it."""

ONEDNN_VARIABLE = "ONEDNN_MAX_CPU_ISA"
"""oneDNN's own, by which OpenVINO and TensorFlow are kept from newer instructions."""

_ONEDNN_WITHOUT_VNNI = ("SSE41", "AVX", "AVX2", "AVX512_CORE")


def imitated() -> str | None:
    """The processor that this machine is told to pass for: `avx2`, or None.

    Raises:
        InputError: if `REPVGG_PROCESSOR` names no processor.
    """
    name = os.environ.get(VARIABLE, "")
    if name not in ("", "avx2"):
        raise InputError(f"{VARIABLE} is 'avx2' or not set. Received: '{name}'.")
    return name or None


def overflows() -> bool:
    """Whether products of 8 bits may overflow on this machine, or on the one that it is told to imitate.

    Where nothing can be found out it is taken for one where they may.

    Raises:
        InputError: if `REPVGG_PROCESSOR` names no processor.
    """
    if imitated() or os.environ.get(ONEDNN_VARIABLE, "").upper() in _ONEDNN_WITHOUT_VNNI:
        return True
    return _is_x86() and not _has_vnni()


def get_processor(name: str) -> str:
    """`portable` or `vnni`, which `this` stands for one of.

    Raises:
        UnknownNameError: if there is no such kind of processor.
    """
    if name not in PROCESSORS:
        raise UnknownNameError("kind of processor", name, PROCESSORS)
    if name != THIS:
        return name
    return PORTABLE if overflows() else VNNI


_warned: list[str] = []


def warn_of_overflow(name: str, processor: str | None) -> None:
    """Says once that the file called `name` was made for other processors than this one, if so it is.

    Args:
        processor: what the file was made for; None if it does not say.
    """
    if processor == VNNI and not _warned and overflows():
        _warned.append(name)
        warnings.warn(
            f"'{name}' was made for processors with VNNI (weights of 8 bits), and here products of 8 bits may "
            "overflow, so its answers may be wrong: export it again with --processor portable.",
            ProcessorWarning,
            stacklevel=3,
        )


def _is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


def _has_vnni() -> bool:
    if not CPU_DESCRIPTION.exists():
        return False
    flags = {
        flag
        for line in CPU_DESCRIPTION.read_text().splitlines()
        if line.startswith("flags")
        for flag in line.partition(":")[2].split()
    }
    return not flags.isdisjoint(("avx512_vnni", "avx_vnni"))
