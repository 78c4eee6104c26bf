"""What this machine's processor does with 8-bit products."""

import platform
from functools import cache
from pathlib import Path


@cache
def saturates() -> bool:
    """Whether 8-bit products may overflow on the way, so that weights have to make do with 7 bits.

    x86 before VNNI adds pairs of products in 16 bits. Where nothing can be found out, caution costs a little precision.
    """
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    description = Path("/proc/cpuinfo")
    return not (description.exists() and "vnni" in description.read_text())
