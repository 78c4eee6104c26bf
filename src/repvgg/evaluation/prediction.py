"""Images to class names with any runner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repvgg.data.reading import OnBroken, prepared_batches
from repvgg.runners.classifier import class_logits, class_names_of, preprocessing_of, softmax
from repvgg.runners.runner import Runner


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, best first, with their probabilities."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def predict(
    runner: Runner,
    paths: Sequence[Path],
    top: int = 5,
    batch_size: int = 32,
    *,
    workers: int | None = None,
    on_broken: OnBroken | None = None,
) -> Iterator[Prediction]:
    """Classifies image files batch by batch, in constant memory; results come in the order of the files.

    Args:
        top: how many classes an image gets; all of them if there are fewer.
        workers: threads that read files while the network runs; one for each core if None.
        on_broken: is called with each file that cannot be read and its error; the file is then left out. If None, the
            first such file raises.

    Raises:
        FileError: at the first file that is not an image, if `on_broken` is None.
        InputError: if the network gives no list of classes.
    """
    batches = prepared_batches(
        paths, preprocessing_of(runner), runner.batch_size or batch_size, workers=workers, on_broken=on_broken
    )
    for batch in batches:
        logits = class_logits(runner, batch.images)
        names = class_names_of(runner, logits.shape[1])
        for index, probabilities in zip(batch.indices, softmax(logits), strict=True):
            yield Prediction(paths[index], *most_likely(names, probabilities, top))


def most_likely(names: Sequence[str], probabilities: np.ndarray, top: int) -> tuple[tuple[str, ...], tuple[float, ...]]:
    """The `top` classes of one image, best first, and their probabilities."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(names[place] for place in best), tuple(float(probabilities[place]) for place in best)
