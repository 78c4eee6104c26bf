"""Reads every image once before a training begins, so that none of them can end it."""

import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repvgg.base.errors import FileError, ImageError
from repvgg.base.words import counted
from repvgg.data.folder import LabelledImages
from repvgg.data.images import check_image

SHOWN = 3
"""Broken files that a message names; the report has them all."""

CHUNK = 1024
"""Files handed to the threads at a time, so that a million of them do not wait in memory."""


@dataclass(frozen=True)
class BrokenImage:
    """A file that cannot be used, its position among those scanned, and a sentence that names it and says why."""

    path: Path
    position: int
    reason: str


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What a scan found.

    Attributes:
        images: the usable ones, in the order they had.
        broken: the others.
        plain: (N,) of the usable ones: True for a JPEG file that TensorFlow's decoder reads as Pillow does, which is
            the quick way. The others are read by Pillow.
    """

    images: LabelledImages
    broken: tuple[BrokenImage, ...]
    plain: np.ndarray

    def summary(self) -> str:
        """A line for people, and one more for each of the first broken files."""
        others = len(self.images) - int(self.plain.sum())
        text = f"{counted(len(self.images), 'image')} of {len(self.images.class_names)} classes"
        if others:
            text += f", {others} of them not plain JPEG and read by Pillow"
        return f"{text}. {_described(self.broken)}" if self.broken else f"{text}, all readable."


def scan(
    images: LabelledImages,
    *,
    strict: bool = False,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> ScanReport:
    """Decodes every file, and sorts out those that cannot be used.

    Args:
        strict: take a single broken file for an error.
        workers: threads; as many as there are processors if None.
        advance: called with the number of images that are done, for a progress bar.

    Raises:
        ImageError: if no image is usable, or none of a class; with `strict` if one is not.
    """
    plain: list[bool] = []
    broken: list[BrokenImage] = []
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool, warnings.catch_warnings():
        # Pillow warns of a damaged EXIF record and the like; the image is as good without.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        for start in range(0, len(images), CHUNK):
            for offset, found in enumerate(pool.map(_examine, images.paths[start : start + CHUNK])):
                if isinstance(found, bool):
                    plain.append(found)
                else:
                    broken.append(BrokenImage(images.paths[start + offset], start + offset, found))
                if advance is not None:
                    advance(1)
    kept = np.setdiff1d(np.arange(len(images)), [item.position for item in broken])
    report = ScanReport(images.subset(kept), tuple(broken), np.array(plain, bool))
    _check(images, report, strict=strict)
    return report


def _examine(path: Path) -> bool | str:
    try:
        return check_image(path)
    except FileError as error:
        return str(error)
    except OSError as error:
        return f"'{path}' cannot be read: {error}."


def _check(images: LabelledImages, report: ScanReport, *, strict: bool) -> None:
    if not report.broken:
        return
    described = _described(report.broken)
    if not len(report.images):
        raise ImageError(f"None of the {len(images)} images can be used. {described}")
    lost = [
        name
        for name, before, after in zip(images.class_names, images.counts, report.images.counts, strict=True)
        if before and not after
    ]
    if lost:
        raise ImageError(f"No image of {', '.join(repr(name) for name in lost)} can be used. {described}")
    if strict:
        raise ImageError(f"{described} Replace or remove them, or scan without strict to leave them out.")


def _described(broken: Sequence[BrokenImage]) -> str:
    count = counted(len(broken), "image is", "images are")
    lines = [f"{count} broken and left out:", *(f"  {item.reason}" for item in broken[:SHOWN])]
    if len(broken) > SHOWN:
        lines.append(f"  and {len(broken) - SHOWN} more.")
    return "\n".join(lines)
