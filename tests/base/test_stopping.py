"""Ctrl-C in a command, without a framework: what is done, by which thread, and what is left."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from repvgg.base import stopping
from repvgg.base.files import atomic_output, folders_for

BEGIN = (
    "import hashlib, os, sys, time\n"
    "from contextlib import suppress\n"
    "from pathlib import Path\n"
    "from repvgg.base.files import atomic_output\n"
    "from repvgg.base.stopping import asked_first, left_to_others, listening, never_half\n"
    "def ready():\n"
    "    print('ready', flush=True)\n"
)


@contextmanager
def process(code: str, folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """A Python process that listens, once it has said that it is ready."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + "with listening():\n" + code],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


def ended(child: "subprocess.Popen[str]") -> tuple[int, str]:
    errors = child.communicate(timeout=300)[1]
    return child.returncode, errors


@pytest.mark.parametrize(
    "doing",
    [
        pytest.param("    ready(); time.sleep(100)", id="waiting"),
        # As TensorFlow does while it is imported.
        pytest.param(
            "    ready()\n    while True:\n        with suppress(BaseException):\n            time.sleep(0.01)",
            id="swallowing",
        ),
        # A call into C that takes minutes, and meanwhile lets other threads run.
        pytest.param("    ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", id="away"),
        pytest.param(
            "    os.dup2(os.open('log', os.O_CREAT | os.O_WRONLY), 2)\n    ready(); time.sleep(100)", id="log"
        ),
    ],
)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_ends_whatever_it_does(doing: str, number: signal.Signals, status: int, tmp_path: Path) -> None:
    with process(doing, tmp_path) as child:
        child.send_signal(number)
        assert ended(child) == (status, "Stopped.\n")


@pytest.mark.parametrize("doing", ["time.sleep(100)", "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"])
def test_what_is_not_finished_is_taken_back(doing: str, tmp_path: Path) -> None:
    code = (
        "    with atomic_output(Path('new/deeper/file.txt')) as temporary:\n"
        "        temporary.write_text('half')\n"
        f"        ready(); {doing}"
    )
    with process(code, tmp_path) as child:
        assert list(tmp_path.rglob("file.txt"))
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "Stopped.\n")
    assert list(tmp_path.iterdir()) == []


def test_what_must_not_stand_half_way_is_finished_first(tmp_path: Path) -> None:
    code = (
        "    with never_half():\n"
        "        ready(); time.sleep(0.5); Path('second').touch()\n"
        "    Path('third').touch(); time.sleep(100)"
    )
    with process(code, tmp_path) as child:
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "Stopped.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["second"]


def test_a_first_signal_can_be_a_request_and_a_second_is_none(tmp_path: Path) -> None:
    code = (
        "    with asked_first(lambda number: print('asked', number, flush=True) is None):\n"
        "        ready(); time.sleep(100)"
    )
    with process(code, tmp_path) as child:
        child.send_signal(signal.SIGINT)
        assert child.stdout is not None
        assert child.stdout.readline() == "asked 2\n"
        time.sleep(2 * stopping.GRACE)
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "Stopped.\n")


def test_where_there_is_nothing_to_wait_for_the_first_stops(tmp_path: Path) -> None:
    with process("    with asked_first(lambda number: False):\n        ready(); time.sleep(100)", tmp_path) as child:
        child.send_signal(signal.SIGINT)
        assert ended(child) == (130, "Stopped.\n")


def test_a_server_stops_in_its_own_way(tmp_path: Path) -> None:
    """Such as one that raises the signal again when it has ended in order."""
    code = (
        "    import signal\n"
        "    came = []\n"
        "    def own(*_):\n"
        "        came.append(1); print('its own way', flush=True)\n"
        "    before = signal.signal(signal.SIGINT, own)\n"
        "    with left_to_others():\n"
        "        ready()\n"
        "        while not came: time.sleep(0.01)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    signal.signal(signal.SIGINT, before)\n"
    )
    with process(code, tmp_path) as child:
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=300) == ("its own way\nits own way\n", "")
        assert child.returncode == 0


def test_in_a_program_of_somebody_elses_signals_are_theirs() -> None:
    before = signal.getsignal(signal.SIGINT)
    with stopping.listening():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "repvgg-stopping"]
    asked: list[int] = []
    with stopping.asked_first(lambda number: asked.append(number) is None):
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert asked == [signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before


def test_folders_that_were_made_in_vain_go(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_output(tmp_path / "a" / "b" / "file"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []

    def fail() -> None:
        with folders_for(tmp_path / "a" / "b" / "file"):
            (tmp_path / "a" / "mine").touch()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]
