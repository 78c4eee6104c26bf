"""The images of a run: found, looked through before the first epoch, and the same again when the run goes on."""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError
from repvgg.base.run_folder import DATA, RunFolder
from repvgg.data.folder import find_splits, is_listed
from repvgg.data.scan import ScanReport, scan
from repvgg.pipeline import FolderSource, RecordSource

Source = FolderSource | RecordSource


@dataclass(frozen=True)
class Inputs:
    """What is trained on and measured with, the files that were left out as (path, reason), and the number of threads
    that read; as many as TensorFlow chooses if None.
    """

    training: Source
    validation: Source
    broken: tuple[tuple[str, str], ...] = ()
    workers: int | None = None

    def fingerprint(self) -> tuple[object, ...]:
        """The same for the same images in the same order, wherever their folder lies."""
        return tuple(
            (source.class_names, len(source), zlib.crc32(source.labels.tobytes()), _crc_of_names(source))
            for source in (self.training, self.validation)
        )


def find_inputs(
    data: Path,
    folder: RunFolder | None,
    *,
    holdout: float,
    seed: int,
    strict: bool,
    workers: int | None = None,
    resumed: bool,
    scanning: Callable[[int], Callable[[int], None]],
) -> Inputs:
    """The images under `data`: class folders, `train/` and `val/`, CSV files, or shards.

    What was found is kept in the run's folder, and a run that goes on compares: another set of images would make it
    another run.

    Args:
        folder: where to keep it; None in a process that writes nothing.
        scanning: called with the number of files to look through; gives the function to call as they are done.

    Raises:
        FileError: if there are no images to train on.
        InputError: if a run goes on and the images have changed.
    """
    if RecordSource.recognizes(data):
        sources = RecordSource.open(data)
        state = {"kind": "records", "counts": {name: len(source) for name, source in sources.items()}}
        _keep(folder, state, resumed=resumed)
        return Inputs(sources["train"], sources["val"], workers=workers)
    splits = dict(zip(("train", "val"), find_splits(data, holdout, seed), strict=True))
    advance = scanning(sum(len(images) for images in splits.values()))
    reports = {name: scan(images, strict=strict, workers=workers, advance=advance) for name, images in splits.items()}
    files = {name: _files(report, data if data.is_dir() else data.parent) for name, report in reports.items()}
    broken = tuple((str(file.path), file.reason) for report in reports.values() for file in report.broken)
    state = {"kind": "folders", "files": files, "broken": [list(row) for row in broken]}
    if is_listed(data):
        # Folders are labels; in a list a line may change and its file stay the same.
        state["labels"] = {name: zlib.crc32(report.images.labels.tobytes()) for name, report in reports.items()}
    _keep(folder, state, resumed=resumed)
    training, validation = (FolderSource(report.images, report.plain) for report in reports.values())
    return Inputs(training, validation, broken, workers)


def _crc_of_names(source: Source) -> int:
    if not isinstance(source, FolderSource):
        return 0
    return zlib.crc32("\n".join(path.name for path in source.images.paths).encode("utf-8", "surrogateescape"))


def _files(report: ScanReport, root: Path) -> list[list[Any]]:
    """Each file's place below `root` and its size, which tell whether it is the same when a run goes on."""
    return [
        [path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path), path.stat().st_size]
        for path in report.images.paths
    ]


def _keep(folder: RunFolder | None, state: dict[str, Any], *, resumed: bool) -> None:
    if folder is None:
        return
    if not resumed or not (folder / DATA).exists():
        folder.write_json(DATA, state)
    elif folder.read_json(DATA) != state:
        raise InputError(
            f"The images have changed since the run in '{folder.path}' was begun ('{DATA}' in it lists them), so it "
            "cannot go on as the same run. Put them back as they were, or begin anew with --force."
        )
