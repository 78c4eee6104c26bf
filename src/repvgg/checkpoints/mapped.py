"""The memory behind arrays that are windows on a mapped file."""

import mmap
import sys
from typing import Any

import numpy as np
import numpy.typing as npt


def drop_pages(array: npt.NDArray[Any]) -> None:
    """Lets go of the memory that reading the file behind `array` took; the next access reads it again.

    Otherwise every page that was looked at stays with the process, and a checkpoint is in memory twice: as the file and
    as the model.
    """
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if sys.platform != "win32" and isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)
