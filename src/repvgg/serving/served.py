"""A network that is served: what is asked of it before, and what it does with a picture."""

from pathlib import Path

import numpy as np
from PIL import Image

from repvgg.base.errors import InputError
from repvgg.data import prepare_image
from repvgg.runners.classifier import class_logits, class_names_of, preprocessing_of, softmax
from repvgg.runners.runner import Runner
from repvgg.serving.batches import powers_up_to


class Served:
    """A classifier with the name that answers call it by. It has run once for each size of batch.

    Args:
        batch: pictures it is given together, at most, where its file leaves that open.

    Raises:
        InputError: if it is not a classifier, or carries names or preprocessing that do not fit it.
    """

    def __init__(self, name: str, runner: Runner, batch: int = 8) -> None:
        self.name, self.runner = name, runner
        self.preprocessing = preprocessing_of(runner)
        # An artifact of fixed batches takes any number up to that, and is filled up.
        self.sizes = (runner.batch_size,) if runner.batch_size is not None else powers_up_to(batch)
        grey = Image.new("RGB", (self.preprocessing.crop,) * 2, (128,) * 3).convert(self._mode())
        image = prepare_image(grey, self.preprocessing)
        for size in self.sizes:
            outputs = class_logits(runner, np.repeat(image[np.newaxis], size, axis=0)).shape[1]
        self.class_names = class_names_of(runner, outputs)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Of all classes (N, classes), for prepared images (N, H, W, C)."""
        return softmax(class_logits(self.runner, images))

    def _mode(self) -> str:
        return {1: "L", 3: "RGB", 4: "RGBA"}[self.preprocessing.channels]


def names_of(paths: list[Path]) -> list[str]:
    """What to call the networks in these files: by their names, and with their folders where these are the same.

    Raises:
        InputError: if a file is given twice.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise InputError("A file is served once. Give each only once.")
    names = [path.name for path in paths]
    return [path.name if names.count(path.name) == 1 else str(path) for path in paths]
