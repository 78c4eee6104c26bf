"""Handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels, no download.

Source: UCI ML hand-written digits (E. Alpaydin, C. Kaynak), test part, as packaged in `sklearn.datasets.load_digits`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from repvgg.base.dependencies import require
from repvgg.base.metadata import Preprocessing
from repvgg.data import prepare_image

CLASS_NAMES = tuple(str(digit) for digit in range(10))
PREPROCESSING = Preprocessing(crop=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3)
TEST_SHARE = 0.25
SPLIT_SEED = 0
"""The split is fixed: accuracies of different runs are of the same test images."""


@dataclass(frozen=True)
class Digits:
    """Images as files hold them, and as the network takes them: (N, 32, 32, 3) in float32; labels (N,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    test_pictures: tuple[Image.Image, ...]


def load_digits() -> Digits:
    """The digits, split by class.

    Raises:
        MissingDependencyError: without scikit-learn.
    """
    datasets = require("sklearn.datasets", extra="demo", purpose="The demo's digits")
    selection = require("sklearn.model_selection", extra="demo", purpose="The demo's digits")
    raw = datasets.load_digits()
    train, test = selection.train_test_split(
        np.arange(len(raw.target)), test_size=TEST_SHARE, random_state=SPLIT_SEED, stratify=raw.target
    )
    pictures = [Image.fromarray((pixels / 16 * 255).round().astype(np.uint8)) for pixels in raw.images]
    images = np.stack([prepare_image(picture.convert("RGB"), PREPROCESSING) for picture in pictures])
    labels = raw.target.astype(np.int32)
    return Digits(images[train], labels[train], images[test], labels[test], tuple(pictures[index] for index in test))


def save_examples(digits: Digits, folder: Path, count: int = 20) -> list[Path]:
    """Writes the first test images as PNG files, named after what they show, to try `repvgg predict` on."""
    folder.mkdir(parents=True)
    paths = []
    for index in range(count):
        path = folder / f"test-{index:02d}-is-{digits.test_labels[index]}.png"
        digits.test_pictures[index].save(path)
        paths.append(path)
    return paths


class ShiftedBatches(keras.utils.PyDataset):
    """Training batches in a new order each epoch, every image shifted by up to `reach` pixels.

    Which shift an image gets follows from the seed, the epoch and nothing else.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, batch_size: int, seed: int, reach: int = 2) -> None:
        super().__init__()
        self.images = np.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        self.labels = labels
        self.batch_size = batch_size
        self.reach = reach
        self._generator = np.random.default_rng(seed)
        self._side = images.shape[1]
        self.on_epoch_end()

    def __len__(self) -> int:
        # The last, short batch is left out: its statistics would be of a few images.
        return len(self.images) // self.batch_size

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self.batch_size : (index + 1) * self.batch_size]
        batch = np.stack(list(self._shifted(chosen)))
        return batch, self.labels[chosen]

    def _shifted(self, chosen: np.ndarray) -> Iterator[np.ndarray]:
        for image, (top, left) in zip(self.images[chosen], self._shifts[chosen], strict=True):
            yield image[top : top + self._side, left : left + self._side]

    def on_epoch_end(self) -> None:
        self._order = self._generator.permutation(len(self.images))
        self._shifts = self._generator.integers(0, 2 * self.reach + 1, (len(self.images), 2))
