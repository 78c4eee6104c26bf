"""What is seen of long work: lines where there is no terminal, however long a single step takes; a bar on one."""

import io
import os
import re
import sys
import time

import pytest
from rich.console import Console

from repvgg.base import progress
from repvgg.base.progress import working
from repvgg.base.quiet import quiet_libraries


def waited(stream: io.StringIO, lines: int) -> list[str]:
    """The lines on `stream` as soon as there are so many; fails after seconds, as a thread that tells nothing would."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        found = stream.getvalue().splitlines()
        if len(found) >= lines:
            return found
        time.sleep(0.005)
    raise AssertionError(f"only {stream.getvalue()!r}")


def test_without_a_terminal_a_line_comes_while_a_step_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    stream = io.StringIO()
    with working(Console(file=stream), "training", 400, done=100, unit="steps") as work:
        work.advance(20)
        work.say("loss 1.250")
        lines = waited(stream, 2)
    assert re.fullmatch(
        r"training: 120 of 400 steps, 30 %, loss 1\.250, 0:00:0\d so far, about 0:0\d:\d\d left", lines[-1]
    )
    told = stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue() == told, "a line after the end of the work"


def test_work_of_unknown_length_tells_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    stream = io.StringIO()
    with working(Console(file=stream), "converting"):
        assert re.fullmatch(r"converting: 0:00:0\d so far", waited(stream, 1)[0])


def test_no_line_where_others_were_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 1.0)
    stream = io.StringIO()
    with working(Console(file=stream), "training", 10) as work:
        for _ in range(15):
            time.sleep(0.1)
            work.heard()
    assert stream.getvalue() == ""


def test_lines_come_while_libraries_are_kept_quiet(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An INT8 export turns standard error away from its libraries for minutes."""
    monkeypatch.setattr(progress, "SILENCE", 0.02)
    with working(Console(file=sys.stderr), "quantizing") as work, quiet_libraries():
        os.write(2, b"chatter\n")
        deadline = time.monotonic() + 20
        while not (told := capfd.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.005)
        assert told.startswith("quantizing: 0:00:0")
        assert "chatter" not in told
        assert work.silent_for() < 20


def test_nothing_on_a_quiet_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENCE", 0.01)
    stream = io.StringIO()
    with working(Console(file=stream, quiet=True), "training", 10):
        time.sleep(0.1)
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes() -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    with working(console, "training", 400, unit="steps") as work:
        work.advance(20)
        work.say("loss 1.250")
    text = stream.getvalue()
    assert "training" in text
    assert "20/400 loss 1.250" in text
    assert text.endswith("\x1b[2K"), "the bar has to be wiped away"
