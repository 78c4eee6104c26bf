"""Street scenes on disk: pairs of pictures and labels, batches of random crops, and the classes of CamVid.

A folder holds `images/NAME.jpg` (or .png) and `labels/NAME.png`, one byte a pixel: the class's number, or `VOID`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")
VOID = 11
"""The label of pixels that belong to no class: they teach nothing and count nowhere."""

COLOURS = np.array(
    [
        (128, 178, 230),
        (150, 80, 72),
        (235, 205, 120),
        (115, 92, 140),
        (205, 160, 205),
        (92, 138, 60),
        (240, 140, 40),
        (100, 110, 120),
        (40, 80, 170),
        (230, 60, 60),
        (20, 170, 160),
        (25, 25, 25),
    ],
    np.uint8,
)
"""RGB of each class, then of void."""


class Batch(NamedTuple):
    """What one step of training reads.

    Attributes:
        images: pixels (N, H, W, 3), 0 to 255, float32.
        labels: classes (N, H, W), int32; void is written as class 0, and weighs nothing.
        weights: how much each pixel counts (N, H, W), float32.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Scenes:
    """The scenes of one folder, in the order of their names.

    Raises:
        SystemExit: if the folder has no scenes, or a picture without labels.
    """

    def __init__(self, folder: Path) -> None:
        self.pictures = sorted(path for path in (folder / "images").glob("*.*") if path.suffix in (".jpg", ".png"))
        if not self.pictures:
            raise SystemExit(f"'{folder}' has no pictures in 'images/' (NAME.jpg or NAME.png).")
        self.labels = [folder / "labels" / f"{path.stem}.png" for path in self.pictures]
        for path in self.labels:
            if not path.exists():
                raise SystemExit(f"There is a picture without labels: '{path}' does not exist.")

    def __len__(self) -> int:
        return len(self.pictures)

    def picture(self, place: int) -> Image.Image:
        """A scene as it was photographed."""
        with Image.open(self.pictures[place]) as file:
            return file.convert("RGB")

    def label(self, place: int) -> Image.Image:
        """Its classes."""
        with Image.open(self.labels[place]) as file:
            label = file.copy()
        if label.mode not in ("L", "P") or np.max(label) > VOID:
            raise SystemExit(
                f"'{self.labels[place]}' must hold one byte a pixel, 0 to {VOID}; it is of mode {label.mode} and goes "
                f"up to {np.max(label)}."
            )
        return label

    def whole(self, image_size: tuple[int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every scene at `image_size` (height, width): pixels (H, W, 3), classes (H, W)."""
        height, width = image_size
        for place in range(len(self)):
            picture = self.picture(place).resize((width, height), Image.Resampling.BILINEAR)
            label = self.label(place).resize((width, height), Image.Resampling.NEAREST)
            yield np.asarray(picture, np.float32), np.asarray(label, np.int32)

    def class_weights(self) -> np.ndarray:
        """(classes + 1,): the root of (median share / share of the pixels); 0 for void.

        A pedestrian is one pixel in 160 and road one in 3. Without weights the small classes are learnt last; with the
        whole ratio instead of its root they are seen everywhere.
        """
        counts = sum(np.bincount(np.ravel(self.label(place)), minlength=VOID + 1) for place in range(len(self)))
        shares = np.asarray(counts[:VOID], np.float64) / np.sum(counts[:VOID])
        weights = np.sqrt(np.median(shares) / np.maximum(shares, 1e-6))
        return np.append(weights, 0).astype(np.float32)

    def epoch(self, number: int, batch: int, crop: tuple[int, int], weights: np.ndarray, seed: int) -> Iterator[Batch]:
        """All scenes in random order as batches of random crops, the last incomplete batch left out.

        What a batch holds follows from (seed, epoch, place) alone, so training can stop and go on anywhere. The next
        batch is read while the caller works on this one.
        """
        order = np.random.default_rng([seed, number]).permutation(len(self))
        parts = [order[start : start + batch] for start in range(0, len(order) - batch + 1, batch)]
        with ThreadPoolExecutor(1) as reader:
            waiting = None
            for part in parts:
                following = reader.submit(self._batch, part, number, crop, weights, seed)
                if waiting is not None:
                    yield waiting.result()
                waiting = following
            if waiting is not None:
                yield waiting.result()

    def _batch(self, places: Sequence[int], epoch: int, crop: tuple[int, int], weights: np.ndarray, seed: int) -> Batch:
        pairs = [self._crop(int(place), crop, np.random.default_rng([seed, epoch, place])) for place in places]
        images, labels = (np.stack(side) for side in zip(*pairs, strict=True))
        return Batch(images, np.where(labels == VOID, 0, labels), weights[labels])

    def _crop(self, place: int, crop: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A part of a scene, half to the whole of its sides, as large as `crop`, sometimes mirrored and recoloured."""
        height, width = crop
        picture, label = self.picture(place), self.label(place)
        share = generator.uniform(0.5, 1)
        wide, high = picture.width * share, picture.height * share
        left, top = generator.uniform(0, picture.width - wide), generator.uniform(0, picture.height - high)
        box = (left, top, left + wide, top + high)
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR, box=box), np.float32)
        classes = np.asarray(label.resize((width, height), Image.Resampling.NEAREST, box=box), np.int32)
        if generator.random() < 0.5:
            pixels, classes = pixels[:, ::-1], classes[:, ::-1]
        contrast, brightness = generator.uniform(0.7, 1.3), generator.uniform(-30, 30)
        middle = pixels.mean((0, 1))
        return np.clip((pixels - middle) * contrast + middle + brightness, 0, 255).astype(np.float32), classes
