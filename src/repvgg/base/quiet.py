"""Other people's progress bars and advice, kept from the terminal."""

import io
import logging
import os
import sys
import tempfile
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


@contextmanager
def quiet_libraries(written: io.BytesIO | None = None) -> Iterator[None]:
    """Nothing on standard error, not even from libraries that write to the file descriptor itself.

    Args:
        written: gets what they wrote, at the end.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as log:
        try:
            os.dup2(log.fileno(), 2)
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            if written is not None:
                log.seek(0)
                written.write(log.read())
