"""Images that show a quantizer what the numbers inside a network look like."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data import find_images, read_batch
from repvgg.data.folder import find_labelled_images
from repvgg.data.listing import is_listing

COUNT = 256
"""Enough for ranges to settle; a few more or less change no accuracy that can be told apart."""

Source = str | Path | np.ndarray | Iterable[Any]


def calibration_images(
    source: Source, preprocessing: Preprocessing | None = None, count: int = COUNT, seed: int = 0
) -> np.ndarray:
    """At most `count` images for calibration, (N, H, W, C) in float32, prepared as the network wants them.

    Args:
        source: a folder, best with one sub-folder a class; a CSV file of paths and labels; paths of images; or images
            that are prepared already: one array (N, H, W, C), or an iterable of such arrays, of single images
            (H, W, C), or of tuples that begin with either, as a data set gives them.
        preprocessing: the network's own; only for files.
        seed: which images are chosen where there are more than `count`; an iterable is read from its beginning.

    Raises:
        InputError: if there is no image, or something else than images.
        FileError: if a folder or file is missing or cannot be read.
    """
    if count < 1:
        raise InputError(f"Calibration needs at least 1 image. Received: count={count}.")
    if isinstance(source, str | Path):
        return read_batch(_chosen_files(Path(source), count, seed), _required(preprocessing))
    if isinstance(source, np.ndarray):
        images = _checked(source)
        chosen: np.ndarray = images[_some(len(images), count, np.random.default_rng(seed))]
        return chosen
    items = iter(source)
    first = next(items, None)
    if isinstance(first, str | Path):
        paths = [Path(first), *(Path(path) for path in items)]
        return read_batch(
            [paths[index] for index in _some(len(paths), count, np.random.default_rng(seed))], _required(preprocessing)
        )
    return _collected(first, items, count)


def choose_balanced(groups: Sequence[Sequence[Path]], count: int, seed: int) -> list[Path]:
    """`count` files, from each group the same number as far as it has them; what is missing comes from the others."""
    generator = np.random.default_rng(seed)
    shuffled = [[group[index] for index in generator.permutation(len(group))] for group in groups]
    chosen: list[Path] = []
    depth = 0
    while len(chosen) < count and any(len(group) > depth for group in shuffled):
        layer = [group[depth] for group in shuffled if len(group) > depth]
        # The last round may not be whole; which classes it serves is left to chance as well.
        chosen += [layer[index] for index in generator.permutation(len(layer))[: count - len(chosen)]]
        depth += 1
    return chosen


def _chosen_files(root: Path, count: int, seed: int) -> list[Path]:
    if is_listing(root):
        listed = find_labelled_images(root)
        by_class = [listed.subset(listed.labels == label).paths for label in range(len(listed.class_names))]
        return choose_balanced(by_class, count, seed)
    files = find_images([root])
    groups: dict[str, list[Path]] = {}
    for file in files:
        parts = file.relative_to(root).parts if root.is_dir() else ()
        groups.setdefault(parts[0] if len(parts) > 1 else "", []).append(file)
    return choose_balanced(list(groups.values()), count, seed)


def _some(total: int, count: int, generator: np.random.Generator) -> np.ndarray:
    return np.arange(total) if total <= count else np.sort(generator.permutation(total)[:count])


def _collected(first: Any, rest: Iterable[Any], count: int) -> np.ndarray:
    if first is None:
        raise InputError("There is no image to calibrate with: the iterable is empty.")
    parts: list[np.ndarray] = []
    total = 0
    for item in _chained(first, rest):
        array = np.asarray(item[0] if isinstance(item, tuple) else item, dtype=np.float32)
        parts.append(_checked(array[None] if array.ndim == 3 else array))
        total += len(parts[-1])
        if total >= count:
            break
    shapes = {part.shape[1:] for part in parts}
    if len(shapes) > 1:
        raise InputError(f"Calibration images must be of one size. Received: {', '.join(map(str, sorted(shapes)))}.")
    return np.concatenate(parts)[:count]


def _chained(first: Any, rest: Iterable[Any]) -> Iterable[Any]:
    yield first
    yield from rest


def _checked(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or len(images) == 0:
        raise InputError(f"Calibration images come as (N, H, W, C), at least one. Received the shape {images.shape}.")
    if not np.isfinite(images).all():
        raise InputError("There are values among the calibration images that are not finite.")
    return images.astype(np.float32, copy=False)


def _required(preprocessing: Preprocessing | None) -> Preprocessing:
    if preprocessing is None:
        raise InputError("Image files are prepared with the network's preprocessing, and none was given.")
    return preprocessing
