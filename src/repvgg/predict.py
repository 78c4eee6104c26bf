"""Images to class names with any runner."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repvgg.data import read_batch
from repvgg.errors import InputError
from repvgg.metadata import Preprocessing
from repvgg.runner import Runner


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, best first, with their probabilities."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def preprocessing_of(runner: Runner) -> Preprocessing:
    """How images are prepared for this network: what it carries, or ImageNet's way if it carries nothing.

    Raises:
        InputError: if that does not fit the shape the network takes.
    """
    preprocessing = runner.metadata.preprocessing or Preprocessing()
    height, width, channels = runner.input_shape
    expected = (height or preprocessing.crop, width or preprocessing.crop, channels or preprocessing.channels)
    actual = (preprocessing.crop, preprocessing.crop, preprocessing.channels)
    if expected != actual:
        origin = "carries preprocessing" if runner.metadata.preprocessing else "carries none, and ImageNet's is"
        raise InputError(
            f"'{runner.name}' takes images of shape {expected}, and it {origin} for {actual}. Set it with "
            "repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(...)) and save the model again."
        )
    return preprocessing


def predict(runner: Runner, paths: Sequence[Path], top: int = 5, batch_size: int = 32) -> Iterator[Prediction]:
    """Classifies image files batch by batch, in constant memory.

    Args:
        top: how many classes an image gets; all of them if there are fewer.

    Raises:
        ImageError: at the first file that is no image.
        InputError: if the network gives no list of classes.
    """
    preprocessing = preprocessing_of(runner)
    size = runner.batch_size or batch_size
    for start in range(0, len(paths), size):
        part = paths[start : start + size]
        images = read_batch(part, preprocessing)
        missing = size - len(part) if runner.batch_size else 0
        logits = runner(np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]))[: len(part)]
        if logits.ndim != 2:
            raise InputError(f"'{runner.name}' is no classifier: its output has the shape {logits.shape}.")
        names = runner.metadata.class_names or tuple(str(index) for index in range(logits.shape[1]))
        if len(names) != logits.shape[1]:
            raise InputError(f"'{runner.name}' has {logits.shape[1]} outputs and {len(names)} class names.")
        for path, probabilities in zip(part, softmax(logits), strict=True):
            best = np.argsort(-probabilities, kind="stable")[:top]
            yield Prediction(
                path, tuple(names[index] for index in best), tuple(float(probabilities[index]) for index in best)
            )


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes)."""
    exponentials = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
