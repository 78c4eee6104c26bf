"""The images of a run: found, looked through before the first epoch, and the same again when the run goes on."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError
from repvgg.base.run_folder import DATA, RunFolder
from repvgg.data.folder import is_listed, place_of
from repvgg.data.scan import ScanReport, scan
from repvgg.pipeline import FolderSource, RecordSource
from repvgg.training.request import Request

Source = FolderSource | RecordSource


@dataclass(frozen=True)
class Inputs:
    """What is trained on and measured with.

    Attributes:
        training, validation: the images.
        state: which images these are, as plain values: another set of images would make a run another one.
        broken: files that were left out, as (path, reason).
        workers: threads that read; as many as TensorFlow chooses if None.
    """

    training: Source
    validation: Source
    state: Mapping[str, Any]
    broken: tuple[tuple[str, str], ...] = ()
    workers: int | None = None

    def fingerprint(self) -> tuple[object, ...]:
        """The same for the same images in the same order, wherever their folder lies."""
        return tuple(
            (source.class_names, len(source), zlib.crc32(source.labels.tobytes()), _crc_of_names(source))
            for source in (self.training, self.validation)
        )

    def require_same(self, folder: RunFolder) -> None:
        """Makes sure that a run goes on with the images that it began with.

        Raises:
            InputError: if they have changed.
        """
        if not (folder / DATA).exists():
            return
        # A file that cannot be read stands in the one list or in the other.
        before, now = ({**state, "broken": None} for state in (folder.read_json(DATA), self.state))
        if before != now:
            raise InputError(
                f"The images have changed since the run in '{folder.path}' was begun ('{DATA}' in it lists them), so "
                "it cannot go on as the same run. Put them back as they were, or begin anew with --force."
            )


def find_inputs(request: Request, scanning: Callable[[int], Callable[[int], None]]) -> Inputs:
    """The images of a run, each of them looked at.

    Args:
        scanning: called with the number of files to look through; gives the function to call as they are done.

    Raises:
        FileError: if there are no images to train on.
    """
    if request.splits is None:
        sources = RecordSource.open(request.data)
        labels = {name: zlib.crc32(source.labels.tobytes()) for name, source in sources.items()}
        counts = {name: len(source) for name, source in sources.items()}
        shards = {"kind": "records", "counts": counts, "labels": labels}
        return Inputs(sources["train"], sources["val"], shards, workers=request.workers)
    splits = dict(zip(("train", "val"), request.splits, strict=True))
    advance = scanning(sum(len(images) for images in splits.values()))
    reports = {
        name: scan(images, strict=request.strict, workers=request.workers, advance=advance)
        for name, images in splits.items()
    }
    root = request.data if request.data.is_dir() else request.data.parent
    files = {name: _files(report, root) for name, report in reports.items()}
    broken = tuple((str(file.path), file.reason) for report in reports.values() for file in report.broken)
    training, validation = (FolderSource(report.images, report.plain) for report in reports.values())
    places = [[place_of(Path(path), root), reason] for path, reason in broken]
    state: dict[str, Any] = {"kind": "folders", "files": files, "broken": places}
    if is_listed(request.data):
        # Folders are labels; in a list a line may change and its file stay the same.
        state["labels"] = {name: zlib.crc32(report.images.labels.tobytes()) for name, report in reports.items()}
    return Inputs(training, validation, state, broken, request.workers)


def _crc_of_names(source: Source) -> int:
    if not isinstance(source, FolderSource):
        return 0
    return zlib.crc32("\n".join(path.name for path in source.images.paths).encode("utf-8", "surrogateescape"))


def _files(report: ScanReport, root: Path) -> list[list[Any]]:
    """Each file's place below `root` and its size, which tell whether it is the same when a run goes on."""
    return [[place_of(path, root), path.stat().st_size] for path in report.images.paths]
