"""The folder of a training run: everything that is needed to look at it, repeat it and go on with it."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, OutputExistsError
from repvgg.base.files import atomic_output, folders_for

SETTINGS, DATA, HISTORY, README = "run.json", "data.json", "history.csv", "README.md"
BEST, LAST, DEPLOYED, PICTURE = "best.keras", "last.keras", "deploy.keras", "training.png"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
INT8, SCALES = "int8.onnx", "scales.json"
REPORT = "report.html"
OPTIMIZER_SCALES, SEARCH = "scales.safetensors", "search"
"""What RepOptimizer multiplies gradients by, and the run that found it."""

_OURS = (
    SETTINGS, DATA, HISTORY, README, BEST, LAST, DEPLOYED, PICTURE, CHECKPOINTS, TENSORBOARD, INT8, SCALES, REPORT,
    OPTIMIZER_SCALES, SEARCH,
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

    def require_free(self, *, resume: bool, force: bool) -> None:
        """Makes sure that a new run may begin here.

        Raises:
            OutputExistsError: if the folder is taken; `force` allows for it, and `resume` where no run was begun yet.
        """
        if self.path.is_file():
            raise OutputExistsError(f"'{self.path}' is a file, and a run needs a folder. --output names another one.")
        if force or not self.path.exists() or not any(self.path.iterdir()) or (resume and self._unbegun()):
            return
        way = "--resume goes on with it, --force begins anew" if self.started else "--force replaces its files"
        raise OutputExistsError(f"'{self.path}' exists already; {way}, and --output names another folder.")

    def begin(self, data: Mapping[str, Any], told: Mapping[str, Any]) -> None:
        """Makes the folder, without what another run left in it, and writes what the new one begins with.

        Args:
            data: the images.
            told: the settings, and what is good to know beside them.
        """
        with folders_for(self.path / SETTINGS):
            self._clear()
            self.write_json(DATA, data)
            self.write_settings(told)

    def _unbegun(self) -> bool:
        """Whether a start ended here before its settings were written, as when another host was not ready."""
        return all(item.name == DATA or item.name.startswith((".data.", ".run.")) for item in self.path.iterdir())

    def write_settings(self, told: Mapping[str, Any]) -> None:
        """Keeps what decides the run, and what is good to know beside it."""
        self.write_json(SETTINGS, {"repvgg": 1, **told})

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
            raise FileError(f"'{self.path / name}' was not written by this package. Begin the run anew with --force.")
        return values

    def write_history(self, rows: Sequence[Mapping[str, float]]) -> None:
        """All epochs as CSV. Written whole each time, so that a resumed run has no row twice."""
        text = io.StringIO()
        if rows:
            writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows({**row, "epoch": int(row["epoch"])} for row in rows)
        self.write_text(HISTORY, text.getvalue())

    def _clear(self) -> None:
        """Removes what a run writes, and nothing else that may lie in the folder."""
        import shutil

        for name in _OURS:
            item = self.path / name
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink(missing_ok=True)
