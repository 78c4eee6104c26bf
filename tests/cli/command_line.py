"""The command line in this process: what it prints, and its exit status."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from repvgg.cli import main


@dataclass
class Result:
    """What a command left."""

    status: int
    output: str
    errors: str

    @property
    def sentence(self) -> str:
        """What went to standard error, without the box and the lines that typer breaks it into."""
        return " ".join(self.errors.replace("│", "").split())


Run = Callable[..., Result]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A function that runs `repvgg` with its arguments."""

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["repvgg", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        code = stopped.value.code
        return Result(code if isinstance(code, int) else 0, captured.out, captured.err)

    return call
