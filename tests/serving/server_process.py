"""`repvgg serve` as a process of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-m", "repvgg", "serve", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


@contextmanager
def server(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server that answers, and its port."""
    with process(*arguments, "--port", 0) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        found = re.search(r"at http://127\.0\.0\.1:(\d+) ", line)
        assert found, line + started.communicate()[1]
        yield started, int(found[1])
