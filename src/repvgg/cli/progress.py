"""The progress of commands: on standard error, because results go to standard output."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows how far the block is, as a bar or, without a terminal, in lines; gives a function that moves it on.

    Results that go to the same terminal are printed above the bar. It disappears at the end.
    """
    from repvgg.base.progress import working
    from repvgg.cli.terminal import error_console

    # Where results go to a file or another program, standard output is not the bar's to touch.
    with working(error_console(), what, total, redirect=sys.stdout.isatty()) as work:
        yield work.advance
