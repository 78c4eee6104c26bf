"""Labelled images: folders with one sub-folder a class, or CSV files that list them."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from repvgg.base.errors import FileError, InputError, UnknownNameError
from repvgg.data.images import IMAGE_SUFFIXES
from repvgg.data.listing import LISTING_SUFFIXES, is_listing, read_listing

TRAINING_FOLDER = "train"
VALIDATION_FOLDERS = ("val", "validation", "valid", "test")
"""The first that exists is taken."""

SHARDS_INDEX = "records.json"
"""What a folder of shards has, and a folder of images has not."""


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Image files and what is on them; `labels` (N,) int32 counts through `class_names`."""

    paths: tuple[Path, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, chosen: np.ndarray | Sequence[int]) -> "LabelledImages":
        """The images at the positions `chosen`, or where a mask of N truth values is True; the classes stay."""
        positions = np.asarray(chosen)
        positions = np.flatnonzero(positions) if positions.dtype == bool else positions.astype(np.int64)
        return LabelledImages(
            tuple(self.paths[position] for position in positions), self.labels[positions], self.class_names
        )

    @property
    def counts(self) -> np.ndarray:
        """Images of each class, in the order of `class_names`."""
        return np.bincount(self.labels, minlength=len(self.class_names))


def find_labelled_images(root: str | Path, class_names: Sequence[str] | None = None) -> LabelledImages:
    """The images under `root`, one sub-folder a class, each searched to any depth; sorted by name.

    Names that begin with a dot are passed over, and so are files beside the class folders. `root` may be a CSV file of
    paths and labels instead (`repvgg.data.listing`).

    Args:
        class_names: the classes of a model that exists already. Labels then count through these, folders may be
            missing or empty, and a folder of any other name is an error. Without it the folders' names are the classes.

    Raises:
        FileError: if there is no such folder, no class, only one, or one without images.
        UnknownNameError: if a folder is not one of the `class_names`.
    """
    root = Path(root)
    if is_listing(root):
        return _listed_images(root, class_names)
    folders = _visible_folders(root)
    if class_names is None:
        _check_classes(root, folders)
        names = tuple(folder.name for folder in folders)
    else:
        names = tuple(class_names)
        for folder in folders:
            if folder.name not in names:
                raise UnknownNameError(f"class (folder '{folder}')", folder.name, names)
    found = {folder.name: _images_in(folder) for folder in folders}
    if class_names is None:
        empty = [name for name in names if not found[name]]
        if empty:
            raise FileError(
                f"The {_listed(empty, 'class folder')} in '{root}' {_have(empty)} no image. Looked for "
                f"{', '.join(IMAGE_SUFFIXES)}. Add images, or remove the {'folder' if len(empty) == 1 else 'folders'}."
            )
    elif not any(found.values()):
        raise FileError(
            f"The folder '{root}' contains no images in sub-folders named like the model's classes: {', '.join(names)}."
        )
    paths = tuple(path for name in names for path in found.get(name, ()))
    counts = [len(found.get(name, ())) for name in names]
    return LabelledImages(paths, np.repeat(np.arange(len(names), dtype=np.int32), counts), names)


def place_of(path: Path, root: Path) -> str:
    """What an image is called, wherever the folder `root` lies."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def holds_shards(folder: Path) -> bool:
    """Whether `folder` is what `repvgg shard` wrote."""
    return (folder / SHARDS_INDEX).is_file()


def find_splits(root: str | Path, holdout: float = 0.2, seed: int = 0) -> tuple[LabelledImages, LabelledImages]:
    """Images to train with and images to measure with; both count through the same classes.

    Where `root` has `train/` and one of `val/`, `validation/`, `valid/` and `test/` (the first of these that there is),
    they are taken as they are; `train.csv` and `val.csv` likewise where there are no such folders. Otherwise the class
    folders stand in `root`, or in `root/train` if that is all there is, or `root` is a CSV file, and of each class the
    share `holdout` is held out. Which images these are depends on `seed` and on the class's own files, so that a
    further class moves no image of another from one side to the other.

    Raises:
        InputError: if `holdout` is not a share, or a class has too few images to be on either side.
        FileError: as `find_labelled_images`, and if the validation images have classes which the training images lack.
    """
    root = Path(root)
    if is_listing(root):
        return _held_out(root, find_labelled_images(root), holdout, seed)
    folders = {folder.name: folder for folder in _visible_folders(root)}
    training = folders.get(TRAINING_FOLDER)
    if training is not None and _visible_folders(training):
        validation = next((folders[name] for name in VALIDATION_FOLDERS if name in folders), None)
        if validation is not None:
            return _given_splits(training, validation)
        if len(folders) == 1:
            root = training
    elif is_listed(root) and (listing := listing_in(root, (TRAINING_FOLDER,))) is not None:
        measured = listing_in(root, VALIDATION_FOLDERS)
        if measured is None:
            return _held_out(listing, find_labelled_images(listing), holdout, seed)
        train = find_labelled_images(listing)
        return train, find_labelled_images(measured, train.class_names)
    return _held_out(root, find_labelled_images(root), holdout, seed)


def is_listed(root: Path) -> bool:
    """Whether `find_splits` takes its images from a CSV file there, and not from class folders."""
    if is_listing(root):
        return True
    folder = root / TRAINING_FOLDER
    return not (folder.is_dir() and _visible_folders(folder)) and listing_in(root, (TRAINING_FOLDER,)) is not None


def listing_in(root: Path, names: Sequence[str]) -> Path | None:
    """The CSV file in `root` that is called as one of `names`, the first of them that there is."""
    files = [root / f"{name}{ending}" for name in names for ending in LISTING_SUFFIXES]
    return next((file for file in files if file.is_file()), None)


def _listed_images(file: Path, class_names: Sequence[str] | None) -> LabelledImages:
    listed = read_listing(file, class_names)
    if len(listed.class_names) == 1:
        raise FileError(
            f"'{file}' has a single label, '{listed.class_names[0]}', and there is nothing to learn from one class."
        )
    places = {name: place for place, name in enumerate(listed.class_names)}
    labels = np.array([places[label] for label in listed.labels], np.int32)
    # In the order of the classes, as from folders.
    order = np.argsort(labels, kind="stable")
    return LabelledImages(tuple(listed.paths[index] for index in order), labels[order], listed.class_names)


def _given_splits(training: Path, validation: Path) -> tuple[LabelledImages, LabelledImages]:
    train = find_labelled_images(training)
    unknown = [folder.name for folder in _visible_folders(validation) if folder.name not in train.class_names]
    if unknown:
        raise FileError(
            f"'{validation}' has the {_listed(unknown, 'class', 'classes')}, which '{training}' lacks. "
            f"Both need the same folder names; '{training.name}' has {', '.join(train.class_names)}."
        )
    return train, find_labelled_images(validation, train.class_names)


def _held_out(root: Path, images: LabelledImages, holdout: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    if not 0 < holdout < 1:
        raise InputError(f"`holdout` (={holdout}) is the share of images to measure with: between 0 and 1.")
    if seed < 0:
        raise InputError(f"`seed` (={seed}) must not be negative.")
    few = [name for name, count in zip(images.class_names, images.counts, strict=True) if count < 2]
    if few:
        raise InputError(
            f"The {_listed(few, 'class', 'classes')} in '{root}' {_have(few)} a single image, and two are needed: "
            "one to train with and one to measure with. Add images, or give folders train/ and val/."
        )
    held = np.zeros(len(images), bool)
    for label, (name, count) in enumerate(zip(images.class_names, images.counts, strict=True)):
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        size = min(max(round(int(count) * holdout), 1), int(count) - 1)
        held[np.flatnonzero(images.labels == label)[generator.permutation(count)[:size]]] = True
    return images.subset(~held), images.subset(held)


def _check_classes(root: Path, folders: list[Path]) -> None:
    expected = "Expected one sub-folder a class, such as roses/ and tulips/, with the images inside."
    if not folders:
        raise FileError(f"The folder '{root}' has no class sub-folders. {expected}")
    if len(folders) == 1:
        raise FileError(
            f"The folder '{root}' has a single class sub-folder, '{folders[0].name}', and there is nothing to learn "
            f"from one class. {expected}"
        )


def _visible_folders(root: Path) -> list[Path]:
    if not root.exists():
        raise FileError(f"The folder '{root}' does not exist. Check the path.")
    if not root.is_dir():
        raise FileError(
            f"'{root}' is a file, and a folder with one sub-folder a class, or a .csv file of paths and labels, was "
            "expected."
        )
    return sorted(item for item in root.iterdir() if not item.name.startswith(".") and item.is_dir())


def _images_in(folder: Path) -> list[Path]:
    """Links to folders are followed, as collections made of links need it; one that leads back ends there."""
    found: list[Path] = []
    seen: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            path
            for path in (Path(current, name) for name in files if not name.startswith("."))
            # A link that leads nowhere stays: whoever reads the images names it.
            if path.suffix.lower() in IMAGE_SUFFIXES and (path.is_file() or not path.exists())
        ]
    return sorted(found)


def _listed(names: list[str], one: str, many: str | None = None) -> str:
    quoted = ", ".join(f"'{name}'" for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"{one if len(names) == 1 else many or one + 's'} {quoted}"


def _have(names: list[str]) -> str:
    return "has" if len(names) == 1 else "have"
