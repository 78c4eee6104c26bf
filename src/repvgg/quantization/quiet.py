"""Other people's progress bars and advice, kept from the terminal."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout


@contextmanager
def quiet(logger: str | None = None) -> Iterator[None]:
    """Nothing on standard output, and of the logger's messages errors only; the root logger's if None."""
    named = logging.getLogger(logger)
    level = named.level
    named.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        named.setLevel(level)
