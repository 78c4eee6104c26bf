"""Taking turns: A B C, A B C, ..., so that what else happens on the machine happens to all."""

import math
import time
from collections.abc import Callable, Sequence

WARM_UP = 2
"""Calls before anything is counted: runtimes compile and allocate in them."""

TURN = 0.25
MOST_CALLS = 25
"""A turn lasts about so many seconds, and has at most so many counted calls, and one at least."""

REST = 0.06
"""Seconds between two contestants: some runtimes' threads go on spinning for a while, ONNX Runtime's for 40 ms."""

Call = Callable[[], object]


def warm_up(call: Call) -> int:
    """Runs `call` a few times; how many calls make a turn."""
    fastest = math.inf
    for _ in range(WARM_UP + 1):
        start = time.perf_counter()
        call()
        fastest = min(fastest, time.perf_counter() - start)
    return max(1, min(MOST_CALLS, math.ceil(TURN / fastest)))


def take_turns(
    calls: Sequence[Call],
    counts: Sequence[int],
    rounds: int,
    *,
    on_turn: Callable[[int], None],
    on_round: Callable[[], None],
) -> list[list[list[float]]]:
    """Seconds of each call, by contestant and round.

    A turn begins with a call that is not counted, which wakes threads and fills caches: a network in use runs again and
    again.

    Args:
        counts: counted calls in a turn of each contestant.
        on_turn: is told who is next.
        on_round: is called after each round.
    """
    found: list[list[list[float]]] = [[] for _ in calls]
    for _ in range(rounds):
        for place, (call, count) in enumerate(zip(calls, counts, strict=True)):
            on_turn(place)
            time.sleep(REST)
            call()
            seconds = []
            for _ in range(count):
                start = time.perf_counter()
                call()
                seconds.append(time.perf_counter() - start)
            found[place].append(seconds)
        on_round()
    return found
