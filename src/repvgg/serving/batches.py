"""Pictures of concurrent requests go through a network together."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
"""From images (N, H, W, C) to a row for each of them."""


@dataclass(frozen=True)
class Row:
    """What came out for one picture.

    Attributes:
        values: its row of the network's output.
        batch: pictures that were run together.
        seconds: that this took.
    """

    values: np.ndarray
    batch: int
    seconds: float


@dataclass
class _Waiting:
    image: np.ndarray
    answer: "asyncio.Future[Row]"
    came: float


def powers_up_to(largest: int) -> tuple[int, ...]:
    """1, 2, 4, ... as far as `largest`."""
    return tuple(1 << place for place in range(largest.bit_length()))


def parts(count: int, sizes: Sequence[int]) -> Iterator[int]:
    """The sizes of batches in which `count` pictures are run, each one of `sizes`; a last one may be smaller.

    Runtimes plan or compile for each size they meet, which takes up to seconds; so there are few sizes.
    """
    while count > 0:
        size = max((size for size in sizes if size <= count), default=count)
        yield size
        count -= size


class Batcher:
    """Collects pictures until there are enough, or the oldest has waited long enough, and runs them.

    While a batch runs, others collect: under load batches are full without anybody waiting for it.

    Args:
        run: the network. It is called in `pool`, never twice at once.
        sizes: of batches; see `parts`. The largest is the most that are run together.
        window: seconds that a picture waits for others.
        on_their_way: how many pictures there are at the moment, those that wait here among them. When nobody else can
            come, nobody is waited for.
        on_batch: is told of each batch.
    """

    def __init__(
        self,
        run: Run,
        sizes: Sequence[int],
        pool: Executor,
        window: float,
        on_their_way: Callable[[], int],
        on_batch: Callable[[Row], None],
    ) -> None:
        self._run, self._sizes, self._pool, self._window = run, sizes, pool, window
        self._on_their_way, self._on_batch = on_their_way, on_batch
        self._queue: asyncio.Queue[_Waiting | None] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to work, in the event loop that runs."""
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """Ends when everything that waits has been run."""
        if self._worker is not None:
            self._queue.put_nowait(None)
            await self._worker

    def waiting(self) -> int:
        """Pictures that have not begun to run."""
        return self._queue.qsize()

    async def row(self, image: np.ndarray) -> Row:
        """The network's row for one picture (H, W, C). Who stops waiting takes it out of the queue.

        Raises:
            Exception: whatever the network does.
        """
        loop = asyncio.get_running_loop()
        waiting = _Waiting(image, loop.create_future(), loop.time())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def _work(self) -> None:
        while (first := await self._queue.get()) is not None:
            group = await self._collected(first)
            for size in parts(len(group), self._sizes):
                await self._answer(group[:size])
                del group[:size]

    async def _collected(self, first: _Waiting) -> list[_Waiting]:
        group = [first]
        end = first.came + self._window
        while len(group) < self._sizes[-1]:
            late = asyncio.get_running_loop().time() >= end
            if self._queue.empty() and (late or len(group) >= self._on_their_way()):
                break
            try:
                async with asyncio.timeout_at(end if self._queue.empty() else None):
                    following = await self._queue.get()
            except TimeoutError:
                break
            if following is None:
                self._queue.put_nowait(None)  # for the loop outside, which ends with it
                break
            group.append(following)
        return [waiting for waiting in group if not waiting.answer.done()]

    async def _answer(self, group: Sequence[_Waiting]) -> None:
        images = np.stack([waiting.image for waiting in group])
        try:
            values, seconds = await asyncio.get_running_loop().run_in_executor(self._pool, self._timed, images)
        except Exception as error:  # noqa: BLE001 - it belongs to those who asked; the others go on
            for waiting in group:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        rows = [Row(row, len(group), seconds) for row in values]
        self._on_batch(rows[0])
        for waiting, row in zip(group, rows, strict=True):
            if not waiting.answer.done():
                waiting.answer.set_result(row)

    def _timed(self, images: np.ndarray) -> tuple[np.ndarray, float]:
        start = perf_counter()
        values = self._run(images)
        return values, perf_counter() - start
