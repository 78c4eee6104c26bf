"""A runner as a classifier of image files: how images are prepared for it, its batches, and what its outputs mean."""

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.runners.runner import Runner, images_for, logits_of


def preprocessing_of(runner: Runner) -> Preprocessing:
    """How images are prepared for this network: what it carries, or ImageNet's way if it carries nothing, in grey where
    it takes one channel.

    Raises:
        InputError: if that does not fit the shape the network takes, or the network is not a classifier.
    """
    height, width, channels = runner.input_shape
    preprocessing = runner.metadata.preprocessing or Preprocessing.for_channels(channels or 3)
    expected = (height or preprocessing.crop, width or preprocessing.crop, channels or preprocessing.channels)
    actual = (preprocessing.crop, preprocessing.crop, preprocessing.channels)
    if expected != actual:
        # Whoever brings a segmentation network is told that first: no preprocessing would help.
        blank = np.zeros((runner.batch_size or 1, *expected), np.uint8 if runner.takes_uint8 else np.float32)
        _require_list_of_classes(runner, runner(blank))
        origin = "carries preprocessing" if runner.metadata.preprocessing else "carries none, and ImageNet's is"
        raise InputError(
            f"'{runner.name}' takes images of shape {expected}, and it {origin} for {actual}. Set it with "
            "repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(...)) and save the model again."
        )
    return preprocessing


def filled_up(runner: Runner, images: np.ndarray) -> np.ndarray:
    """The batch as this runner takes it: one of a fixed size gets the last image again until it is full."""
    missing = (runner.batch_size or len(images)) - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing > 0 else images


def class_logits(runner: Runner, images: np.ndarray) -> np.ndarray:
    """Logits (N, classes) of a batch (N, H, W, C), which may be smaller than a runner of fixed batches takes.

    A runner that normalizes pixels itself gets them; one that gives probabilities gives their logarithms.

    Raises:
        InputError: if the network gives no list of classes, or values that are not finite.
    """
    logits = logits_of(runner, runner(filled_up(runner, images_for(runner, images)))[: len(images)])
    _require_list_of_classes(runner, logits)
    if not np.isfinite(logits).all():
        raise InputError(
            f"'{runner.name}' gives values that are not finite, which name no class. Were its weights damaged, or did "
            "its training diverge?"
        )
    return logits


def _require_list_of_classes(runner: Runner, output: np.ndarray) -> None:
    if output.ndim != 2:
        raise InputError(
            f"'{runner.name}' is not a classifier: its output has the shape {output.shape}, and (images, classes) was "
            "expected. repvgg.load_runner runs it; repvgg verify compares it."
        )


def class_names_of(runner: Runner, outputs: int) -> tuple[str, ...]:
    """The names of the classes, or their numbers if the network carries no names.

    Raises:
        InputError: if there are more or fewer names than outputs.
    """
    names = runner.metadata.class_names or tuple(str(index) for index in range(outputs))
    if len(names) != outputs:
        raise InputError(f"'{runner.name}' has {outputs} outputs and {len(names)} class names.")
    return names


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities (N, classes), in float64; exact where the probabilities themselves become 0."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    values: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return values


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes), in float64."""
    probabilities: np.ndarray = np.exp(log_softmax(logits))
    return probabilities
