"""What a person sees of long work: a bar on a terminal; where there is none, a line now and then, so that nobody has to
wonder whether it still runs.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

SILENCE = 25.0
"""Seconds without a line after which one is printed, where there is no terminal."""


class Work:
    """Work that is going on: how far it is, and how it stands.

    Args:
        label: what is done, such as "training".
        total: how many parts there are; None where nobody knows.
        unit: of the parts, for the speed; none is shown where empty.
    """

    def __init__(self, label: str, total: int | None = None, *, done: int = 0, unit: str = "") -> None:
        self.label = label
        self.total = total
        self.unit = unit
        self._first, self._done = done, done
        self._state = ""
        self._began = self._heard = time.monotonic()
        self._bar: tuple[Progress, Any] | None = None

    def advance(self, count: int = 1) -> None:
        """So many parts more are done."""
        self._done += count
        if self._bar is not None:
            progress, task = self._bar
            progress.advance(task, count)

    def say(self, state: str) -> None:
        """How it stands, shown with the next line or at once beside the bar."""
        self._state = state
        if self._bar is not None:
            progress, task = self._bar
            progress.update(task, state=state)

    def heard(self) -> None:
        """Something was printed by others, so that the next line has time."""
        self._heard = time.monotonic()

    def silent_for(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._heard

    def line(self) -> str:
        """How far it is, in one line."""
        seconds = time.monotonic() - self._began
        parts = []
        if self.total:
            parts.append(f"{self._done} of {self.total} {self.unit}".rstrip())
            parts.append(f"{100 * self._done / self.total:.0f} %")
        if self._state:
            parts.append(self._state)
        parts.append(f"{_duration(seconds)} so far")
        fresh = self._done - self._first
        if self.total and fresh > 0:
            parts.append(f"about {_duration(seconds / fresh * (self.total - self._done))} left")
        return f"{self.label}: {', '.join(parts)}"

    def follow(self, progress: "Progress") -> None:
        """Shows itself as a bar of `progress`."""
        task = progress.add_task(self.label, total=self.total, completed=self._done, state=self._state, unit=self.unit)
        self._bar = progress, task


@contextmanager
def working(
    console: "Console", label: str, total: int | None = None, *, done: int = 0, unit: str = "", redirect: bool = True
) -> Iterator[Work]:
    """Shows work while the block runs: a bar that disappears at its end, or lines.

    Args:
        console: where to show it; nothing is shown on a quiet one.
        redirect: print what goes to standard output above the bar. Not wanted where that is a file or another program.
    """
    work = Work(label, total, done=done, unit=unit)
    with ExitStack() as stack:
        if console.is_terminal and not console.quiet:
            progress = _bar(console, counted=total is not None, redirect=redirect)
            work.follow(stack.enter_context(progress))
        elif not console.quiet:
            stack.enter_context(_lines(console, work))
        yield work


@contextmanager
def _lines(console: "Console", work: Work) -> Iterator[None]:
    """Prints how far `work` is whenever nothing was said for a while, from a thread: a single step may take longer."""
    ended = threading.Event()

    def tell(stream: IO[str]) -> None:
        while not ended.wait(max(0.01, SILENCE - work.silent_for())):
            if work.silent_for() >= SILENCE:
                stream.write(work.line() + "\n")
                stream.flush()
                work.heard()

    with _unsilenced(console.file) as stream:
        thread = threading.Thread(target=tell, args=(stream,), name="repvgg-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


@contextmanager
def _unsilenced(stream: IO[str]) -> Iterator[IO[str]]:
    """Another way to where `stream` leads now: it may be turned away meanwhile, from libraries that talk too much."""
    try:
        descriptor = os.dup(stream.fileno())
    except (OSError, ValueError):
        # Not a file of the system's, such as a test's.
        yield stream
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as copy:
        yield copy


def _bar(console: "Console", *, counted: bool, redirect: bool) -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            unit = task.fields["unit"]
            return Text(f"{task.speed:.1f} {unit}/s" if unit and task.speed else "")

    columns: tuple[ProgressColumn, ...] = (TextColumn("[bold]{task.description}"), BarColumn(bar_width=20))
    if counted:
        columns = (*columns, MofNCompleteColumn(), TextColumn("{task.fields[state]}"), Speed(), TimeRemainingColumn())
        columns = (*columns, TextColumn("left"))
    else:
        columns = (*columns, TextColumn("{task.fields[state]}"), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, redirect_stdout=redirect)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds for people: 0:04:10."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
