"""What a report is about, looked up before any framework is started."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, InputError
from repvgg.base.run_folder import BEST, DEPLOYED, HISTORY, LAST, REPORT, SETTINGS, RunFolder
from repvgg.reporting.facts import Training
from repvgg.runners import RUNNERS, SAVED_MODEL


@dataclass(frozen=True)
class Subject:
    """A run, or a network by itself.

    Attributes:
        name: of the run's folder or the network.
        folder: the run's; None where there is none.
        files: networks, the one that the others are compared with first.
    """

    name: str
    folder: RunFolder | None
    files: tuple[Path, ...]

    @property
    def training(self) -> Training | None:
        """What the run's folder tells of it."""
        return read_training(self.folder) if self.folder is not None else None


def find_subject(path: Path, others: Sequence[Path] = ()) -> Subject:
    """A run's networks, as trained, as a plain stack, and whatever was exported into its folder; or a single network.

    Args:
        path: a run's folder, or a network's file.
        others: further files.

    Raises:
        FileError: if there is neither.
    """
    if is_network(path) or (path.suffix and not path.is_dir()):
        return Subject(path.name, None, (path, *others))
    folder = RunFolder(path)
    if not path.exists():
        raise FileError(f"'{path}' does not exist. A run's folder was expected, or a network's file.")
    if not folder.started:
        raise FileError(
            f"'{path}' is a folder without '{SETTINGS}', so it is not a training run. Give a run's folder, such as "
            "runs/RepVGG-A0-flowers, or a network's file."
        )
    own = [folder / name for name in (BEST, DEPLOYED) if (folder / name).exists()]
    found = sorted(item for item in path.iterdir() if is_network(item) and item.name not in (BEST, DEPLOYED, LAST))
    return Subject(path.resolve().name, folder, tuple(dict.fromkeys((*own, *found, *others))))


def output_for(network: str | Path | None, output: str | Path | None, *, in_run: bool) -> Path:
    """Where the page goes.

    Raises:
        InputError: if it has another ending, or nothing tells where.
    """
    if output is not None:
        path = Path(output)
        if path.suffix not in (".html", ".htm"):
            raise InputError(f"The report is a web page, and ends in '.html'. Received: '{path.name}'.")
        return path
    if network is None:
        raise InputError("A network in memory does not tell where its report goes. Give `output`: 'report.html'.")
    return Path(network) / REPORT if in_run else Path(network).with_suffix(f".{REPORT}")


def read_training(folder: RunFolder) -> Training:
    """What was set, and how far it came.

    Raises:
        FileError: if its settings or figures are damaged.
    """
    told = folder.read_json(SETTINGS)
    about: dict[str, Any] = told.get("about", {})
    return Training(
        settings=told.get("settings", {}),
        command=about.get("command", ""),
        versions=about.get("versions", {}),
        history=_history(folder / HISTORY),
    )


def _history(path: Path) -> tuple[dict[str, float], ...]:
    if not path.exists():
        return ()
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return tuple({name: float(value) for name, value in row.items()} for row in csv.DictReader(stream))
    except (ValueError, TypeError) as error:
        raise FileError(f"'{path}' is not a table of figures as a run writes it: {error}.") from error


def is_network(path: Path) -> bool:
    """Whether this is a file or folder that can be run, by its looks."""
    if path.is_dir():
        return (path / SAVED_MODEL).exists()
    return path.suffix in RUNNERS
