"""The folder of a training run: everything that is needed to look at it, repeat it and go on with it."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, InputError, OutputExistsError
from repvgg.base.files import atomic_output

SETTINGS, DATA, HISTORY, README = "run.json", "data.json", "history.csv", "README.md"
BEST, LAST, DEPLOYED, PICTURE = "best.keras", "last.keras", "deploy.keras", "training.png"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
INT8, SCALES = "int8.onnx", "scales.json"
REPORT = "report.html"
_OURS = (
    SETTINGS, DATA, HISTORY, README, BEST, LAST, DEPLOYED, PICTURE, CHECKPOINTS, TENSORBOARD, INT8, SCALES, REPORT,
)  # fmt: skip


class RunFolder:
    """Reads and writes the parts of a run; `path` is the folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def started(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / SETTINGS).exists()

    def begin(self, settings: Mapping[str, Any], *, resume: bool, force: bool) -> bool:
        """Makes the folder ready; True if a run in it is to be gone on with.

        Raises:
            OutputExistsError: if the folder is taken and neither `resume` nor `force` is set.
            InputError: if the run in it was begun with other settings.
        """
        if resume and self.started:
            self._require_same(settings)
            return True
        if self.path.exists() and any(self.path.iterdir()):
            if not force and not (resume and self._unbegun()):
                way = "--resume goes on with it, --force begins anew" if self.started else "--force replaces its files"
                raise OutputExistsError(f"'{self.path}' exists already; {way}, and --output names another folder.")
            self._clear()
        self.path.mkdir(parents=True, exist_ok=True)
        return False

    def _unbegun(self) -> bool:
        """Whether a start ended here before its settings were written, as when another host was not ready."""
        return all(item.name == DATA or item.name.startswith((".data.", ".run.")) for item in self.path.iterdir())

    def write_settings(self, settings: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Keeps what decides the run, and what is good to know beside it."""
        self.write_json(SETTINGS, {"repvgg": 1, "settings": settings, "about": about})

    def write_json(self, name: str, values: Mapping[str, Any]) -> None:
        """One JSON file, whole or not at all."""
        self.write_text(name, json.dumps(values, ensure_ascii=False, indent=1) + "\n")

    def write_text(self, name: str, text: str) -> None:
        """One text file, whole or not at all."""
        with atomic_output(self.path / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def read_json(self, name: str) -> dict[str, Any]:
        """What `write_json` wrote.

        Raises:
            FileError: if it is missing or damaged.
        """
        try:
            values = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(
                f"'{self.path / name}' cannot be read: {error}. Begin the run anew with --force."
            ) from error
        if not isinstance(values, dict):
            raise FileError(f"'{self.path / name}' is no such file of this package. Begin the run anew with --force.")
        return values

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """All epochs as CSV. Written whole each time, so that a resumed run has no row twice."""
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
        self.write_text(HISTORY, text.getvalue())

    def _require_same(self, settings: Mapping[str, Any]) -> None:
        begun = self.read_json(SETTINGS).get("settings", {})
        now = json.loads(json.dumps(settings))
        different = [name for name in {**begun, **now} if begun.get(name) != now.get(name)]
        if different:
            told = "; ".join(f"{name} was {begun.get(name)!r} and is {now.get(name)!r}" for name in different[:4])
            raise InputError(
                f"The run in '{self.path}' was begun with other settings: {told}. Give the same ones to go on with it, "
                "or another --output."
            )

    def _clear(self) -> None:
        """Removes what a run writes, and nothing else that may lie in the folder."""
        import shutil

        for name in _OURS:
            item = self.path / name
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)
