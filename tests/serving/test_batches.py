"""Pictures that wait together run together, and nobody gets another's answer."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from repvgg.serving.batches import Batcher, Row, parts, powers_up_to


@pytest.mark.parametrize(
    ("count", "sizes", "expected"),
    [
        (5, (1, 2, 4), [4, 1]),
        (7, (1, 2, 4), [4, 2, 1]),
        (1, (1,), [1]),
        (3, (4,), [3]),
        (6, (4,), [4, 2]),
        (0, (1,), []),
    ],
)
def test_parts(count: int, sizes: Sequence[int], expected: list[int]) -> None:
    assert list(parts(count, sizes)) == expected


def test_powers() -> None:
    assert powers_up_to(1) == (1,)
    assert powers_up_to(8) == (1, 2, 4, 8)
    assert powers_up_to(13) == (1, 2, 4, 8)


class Network:
    """Doubles its images; waits for `gate` before, and remembers the batches."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[list[float]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert self.gate.wait(20)
        self.batches.append(images.ravel().tolist())
        if images.max() > 100:
            raise ValueError("too large")
        return images.reshape(len(images), -1) * 2


def working(
    body: Callable[[Batcher, Network], Awaitable[None]],
    sizes: Sequence[int] = (1, 2, 4),
    window: float = 0.0,
    on_their_way: int = 100,
) -> Network:
    network = Network()
    seen: list[Row] = []

    async def run() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(network, sizes, pool, window, lambda: on_their_way, seen.append)
            batcher.start()
            try:
                await body(batcher, network)
            finally:
                network.gate.set()
                await batcher.close()

    asyncio.run(run())
    assert [row.batch for row in seen] == [len(batch) for batch in network.batches if max(batch) <= 100]
    return network


def picture(value: float) -> np.ndarray:
    return np.full((1, 1, 1), value)


def test_those_who_wait_run_together_and_get_their_own_rows() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        network.gate.clear()
        first = asyncio.create_task(batcher.row(picture(1)))
        await asyncio.sleep(0.02)  # it runs, and the others wait for it
        others = [asyncio.create_task(batcher.row(picture(value))) for value in range(2, 8)]
        await asyncio.sleep(0)
        assert batcher.waiting() == 6
        network.gate.set()
        rows = [await first, *[await other for other in others]]
        assert [row.values.tolist() for row in rows] == [[2 * value] for value in range(1, 8)]
        assert [row.batch for row in rows] == [1, 4, 4, 4, 4, 2, 2]

    assert working(body).batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_a_window_waits_for_more() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        first = asyncio.create_task(batcher.row(picture(1)))
        await asyncio.sleep(0.02)
        assert network.batches == []
        await batcher.row(picture(2))  # the batch is full, and runs at once
        await asyncio.wait_for(first, 5)

    assert working(body, sizes=(1, 2), window=60).batches == [[1, 2]]


def test_nobody_waits_for_those_who_cannot_come() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        await asyncio.wait_for(asyncio.gather(*(batcher.row(picture(value)) for value in (1, 2))), 20)

    assert working(body, window=60, on_their_way=2).batches == [[1, 2]]


def test_a_window_ends() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        assert (await batcher.row(picture(1))).batch == 1

    working(body, window=0.03)


def test_batches_of_a_fixed_size_are_run_as_they_come() -> None:
    """The runner fills them up."""

    async def body(batcher: Batcher, network: Network) -> None:
        await asyncio.gather(*(batcher.row(picture(value)) for value in range(3)))

    assert working(body, sizes=(4,), window=0.05).batches == [[0, 1, 2]]


def test_a_failure_is_that_of_those_who_asked() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        with pytest.raises(ValueError, match="too large"):
            await batcher.row(picture(101))
        assert (await batcher.row(picture(3))).values.tolist() == [6]

    working(body)


def test_who_has_gone_is_not_run() -> None:
    async def body(batcher: Batcher, network: Network) -> None:
        network.gate.clear()
        first = asyncio.create_task(batcher.row(picture(1)))
        await asyncio.sleep(0.02)
        gone = asyncio.create_task(batcher.row(picture(2)))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        network.gate.set()
        await first
        assert (await batcher.row(picture(3))).batch == 1

    assert working(body).batches == [[1], [3]]


def test_closing_runs_what_waits() -> None:
    tasks = []

    async def body(batcher: Batcher, network: Network) -> None:
        network.gate.clear()
        tasks.extend(asyncio.create_task(batcher.row(picture(value))) for value in range(3))
        await asyncio.sleep(0.02)

    # The first waits for others, and closing ends that at once.
    working(body, window=60)
    assert [task.result().values.tolist() for task in tasks] == [[0], [2], [4]]
