"""The labelled images that a report measures with: those a run measured with itself, or a folder that is named."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.base.run_folder import DATA, RunFolder
from repvgg.data.folder import LabelledImages, find_splits
from repvgg.data.reading import prepared_batches
from repvgg.evaluation.labels import labelled_for
from repvgg.pipeline import RecordSource, evaluation_batches
from repvgg.reporting.survey import Survey, numbered, survey
from repvgg.runners.runner import Runner

BATCH = 32


@dataclass
class Images:
    """Labelled images, in files or in shards.

    Attributes:
        name: which these are, for people.
        broken: files that turned out to be unreadable while they were read.
    """

    name: str
    source: LabelledImages | RecordSource
    broken: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.source)

    def survey(
        self, runners: Mapping[str, Runner], preprocessing: Preprocessing, advance: Callable[[int], None]
    ) -> Survey:
        """Runs all networks on all images.

        Raises:
            FileError: if none can be read.
            InputError: if a network cannot take these images, or is not a classifier of these classes.
        """
        files = [path.name for path in self.source.paths] if isinstance(self.source, LabelledImages) else None
        found = survey(
            runners,
            self._batches(preprocessing),
            self.source.class_names,
            preprocessing,
            data=self.name,
            files=files,
            advance=advance,
        )
        return replace(found, broken=len(self.broken))

    def _batches(self, preprocessing: Preprocessing) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        if isinstance(self.source, RecordSource):
            yield from numbered(evaluation_batches(self.source, preprocessing, batch_size=BATCH).as_numpy_iterator())
            return
        for batch in prepared_batches(self.source.paths, preprocessing, BATCH, on_broken=self._leave_out):
            yield batch.images, self.source.labels[batch.indices], batch.indices

    def _leave_out(self, path: Path, error: FileError) -> None:  # noqa: ARG002
        self.broken.append(str(error))


def named_images(data: Path, class_names: Sequence[str] | None) -> Images:
    """The images in a folder of class folders, as `repvgg evaluate` takes it, or the validation images of shards."""
    if RecordSource.recognizes(data):
        return Images(str(data), RecordSource.open(data)["val"])
    return Images(str(data), labelled_for(class_names, data))


def images_of_run(folder: RunFolder, settings: Mapping[str, Any]) -> Images | str:
    """The images that a run measures with, or a sentence why they cannot be had.

    Which of a folder's images these are follows from the run's settings, as it did when it began.
    """
    data = Path(settings.get("data", ""))
    where = f"the run's images, '{data}' as seen from '{Path.cwd()}'"
    advice = "give labelled images: --data FOLDER"
    if not settings.get("data") or not data.exists():
        return f"Accuracy, confusion and mistakes: {where}, are not there; {advice}."
    try:
        if RecordSource.recognizes(data):
            return Images(f"{data}, val", RecordSource.open(data)["val"])
        _, images = find_splits(data, settings["holdout"], settings["seed"])
    except InputError as error:
        return f"Accuracy, confusion and mistakes: {where}, cannot be used ({error}); {advice}."
    kept = folder.read_json(DATA)
    broken = {path for path, _ in kept.get("broken", [])}
    images = images.subset([place for place, path in enumerate(images.paths) if str(path) not in broken])
    if len(images) != len(kept.get("files", {}).get("val", ())):
        return f"Accuracy, confusion and mistakes: {where}, have changed since it began; {advice}."
    return Images(f"{data}, the run's validation images", images)
