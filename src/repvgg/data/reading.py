"""Image files as prepared batches, read ahead by threads: as much memory for a million files as for a hundred."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data.images import load_image, prepare_image

BATCHES_AHEAD = 2
"""Batches that are read while a network runs another one."""

OnBroken = Callable[[Path, FileError], None]
"""Is told of each file that cannot be read as an image, in the order of the files."""


@dataclass(frozen=True)
class PreparedBatch:
    """Images that are ready for a network.

    Attributes:
        indices: (n,) places of the files in the sequence that was asked for.
        images: (n, crop, crop, channels) in float32.
    """

    indices: np.ndarray
    images: np.ndarray


def prepared_batches(
    paths: Sequence[Path],
    preprocessing: Preprocessing,
    batch_size: int,
    *,
    workers: int | None = None,
    on_broken: OnBroken | None = None,
) -> Iterator[PreparedBatch]:
    """Reads files in order, `batch_size` images at a time; only the last batch may be smaller.

    At no time are more images in memory than the batch in use, the one that is put together, and `BATCHES_AHEAD`
    batches that threads have read or are reading.

    Args:
        workers: threads that read; one for each core, and 16 at most, if None.
        on_broken: gets each file that cannot be read, which is then left out; if None, the first one raises.

    Raises:
        FileError: at the first file that is not a readable image, if `on_broken` is None.
        InputError: if `batch_size` or `workers` is below 1.
    """
    for name, number in (("batch_size", batch_size), ("workers", 1 if workers is None else workers)):
        if number < 1:
            raise InputError(f"`{name}` must be at least 1. Received: {number}.")
    return _read(paths, preprocessing, batch_size, workers or min(os.cpu_count() or 1, 16), on_broken)


def _read(
    paths: Sequence[Path], preprocessing: Preprocessing, batch_size: int, workers: int, on_broken: OnBroken | None
) -> Iterator[PreparedBatch]:
    def read(path: Path) -> np.ndarray:
        return prepare_image(load_image(path, preprocessing.channels), preprocessing)

    shape = (batch_size, preprocessing.crop, preprocessing.crop, preprocessing.channels)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="repvgg-reading")
    try:
        following = enumerate(paths)
        waiting: deque[tuple[int, Future[np.ndarray]]] = deque()
        indices: list[int] = []
        # Each batch is an array of its own: a backend may go on using the memory of the one it was given.
        images = np.empty(shape, np.float32)
        while True:
            while len(waiting) < BATCHES_AHEAD * batch_size and (new := next(following, None)) is not None:
                waiting.append((new[0], pool.submit(read, new[1])))
            if not waiting:
                break
            index, future = waiting.popleft()
            try:
                images[len(indices)] = future.result()
            except FileError as error:
                if on_broken is None:
                    raise
                on_broken(paths[index], error)
                continue
            indices.append(index)
            if len(indices) == batch_size:
                yield PreparedBatch(np.array(indices), images)
                indices, images = [], np.empty(shape, np.float32)
        if indices:
            yield PreparedBatch(np.array(indices), images[: len(indices)])
    finally:
        pool.shutdown(cancel_futures=True)
