"""How a command is stopped by Ctrl-C or SIGTERM: within a second, whatever it is doing, and with nothing half-written.

Python turns Ctrl-C into an exception in the main thread, between two of its own instructions. That is not enough here:
frameworks swallow exceptions while they are imported, and a call into them takes as long as it takes. So no exception
is raised at all. The process takes back what it has not finished, and ends, from the main thread where that listens
and from a thread of its own where it does not.

Only the command line listens. In a program of somebody else's, Ctrl-C is theirs, and everything here does nothing but
keep account.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)

GRACE = 0.3
"""Seconds that the main thread has to notice, before the other one ends the process without it."""

LAST_LINE = "\r\x1b[2K\x1b[?25h"
"""What a terminal gets first: a bar may stand in its last line, and the cursor be hidden."""

_undoing: list[Callable[[], None]] = []
_settling = 0
_listener: "_Listener | None" = None


@contextmanager
def undone_if_stopped(undo: Callable[[], None]) -> Iterator[None]:
    """If the process is stopped inside, `undo` is called before it ends; the last one first."""
    _undoing.append(undo)
    try:
        yield
    finally:
        _undoing.remove(undo)


@contextmanager
def never_half() -> Iterator[None]:
    """The process does not stop inside, only after it. For milliseconds: what stands half-way must not last."""
    global _settling  # noqa: PLW0603 - a process is stopped as a whole
    _settling += 1
    try:
        yield
    finally:
        _settling -= 1
        if _listener is not None:
            _listener.look()


@contextmanager
def asked_first(ask: Callable[[int], bool], numbers: Sequence[signal.Signals] = NUMBERS) -> Iterator[None]:
    """Inside, the first signal is a request: `ask` gets its number, and sees to it that what goes on ends soon.

    A second one stops at once; without a command line that is a `KeyboardInterrupt`. With one, `ask` is called in a
    thread of its own, and may give False where there is nothing to wait for.
    """
    if _listener is not None:
        with _listener.asking(ask):
            yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        ask(number)

    with _handling(handle, numbers):
        yield


@contextmanager
def left_to_others() -> Iterator[None]:
    """Inside, signals are the business of whoever sets handlers there, such as a server's."""
    if _listener is None:
        yield
        return
    before = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before, warn_on_full_buffer=False)


@contextmanager
def listening() -> Iterator[None]:
    """Inside, Ctrl-C and SIGTERM end the process: "Stopped." on standard error, exit status 130 or 143."""
    global _listener  # noqa: PLW0603 - as its handlers, a fact of the process
    listener = _Listener()
    with _handling(listener.handle, NUMBERS) as handled:
        if not handled:
            yield
            return
        _listener = listener
        try:
            with listener.watching():
                yield
        finally:
            _listener = None


@contextmanager
def _handling(handle: Callable[[int, FrameType | None], None], numbers: Sequence[signal.Signals]) -> Iterator[bool]:
    """Inside, signals go to `handle`; tells whether they do, which only the main thread can arrange.

    In another thread they stay with whoever runs us there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield False
        return
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield True
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Listener:
    """Notices signals in two places: a handler in the main thread, and a thread that waits for them."""

    def __init__(self) -> None:
        self._ask: Callable[[int], bool] | None = None
        self._asked = False
        self._ordered: int | None = None
        self._turn = threading.Lock()
        self._whose: int | None = None

    @contextmanager
    def asking(self, ask: Callable[[int], bool]) -> Iterator[None]:
        self._ask, self._asked = ask, False
        try:
            yield
        finally:
            self._ask = None
            self.look()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Inside, there is a thread that learns of signals even while the main thread is away in a library."""
        # Standard error may be turned away meanwhile.
        self._terminal = os.dup(2)
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._watch, args=(reading,), name="repvgg-stopping", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            os.close(writing)
            thread.join()
            os.close(reading)
            os.close(self._terminal)

    def handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """In the main thread, as soon as it is back in Python."""
        if self._ask is None:
            self._ordered = number
        self.look()

    def look(self) -> None:
        """Ends the process if that was ordered and nothing stands half-way."""
        if self._ordered is not None and not _settling:
            self._end(self._ordered)

    def _watch(self, reading: int) -> None:
        while received := os.read(reading, 1):
            number = received[0]
            if number not in NUMBERS:
                continue
            if self._ask is not None and not self._asked:
                self._asked = True
                if self._ask(number):
                    continue
            self._ordered = number
            # Has the main thread look as well, which it does unless it is away.
            signal.raise_signal(number)
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline or (_settling and time.monotonic() < deadline + 1):
                time.sleep(0.01)
            self._end(number)

    def _end(self, number: int) -> None:
        me = threading.get_ident()
        if not self._turn.acquire(blocking=False):
            if self._whose != me:
                # The other thread is at it.
                time.sleep(10)
                os._exit(128 + number)
            return
        self._whose = me
        with suppress(OSError):
            words = "Stopped.\n"
            os.write(self._terminal, ((LAST_LINE if os.isatty(self._terminal) else "") + words).encode())
        for undo in reversed(_undoing):
            with suppress(Exception):
                undo()
        # No exit handlers: those of frameworks wait for their threads, and those of a cluster for other hosts.
        os._exit(128 + number)
