"""Labelled images whose labels count through a network's own outputs, whatever the order of the folders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.data.folder import VALIDATION_FOLDERS, LabelledImages, find_labelled_images, listing_in
from repvgg.data.listing import is_listing


def labelled_for(
    class_names: Sequence[str] | None, images: LabelledImages | str | Path, *, sorted_folders: bool = False
) -> LabelledImages:
    """The images, with labels that count through `class_names`; as they are if the network carries no names.

    Args:
        images: labelled images, a CSV file of paths and labels, or a folder of class folders; if it has a folder
            `val/` (or `validation/`, `valid/`, `test/`) of class folders, or a `val.csv`, that one is meant.
        sorted_folders: the images' classes stand in the order of the network's outputs already, whatever their names.

    Raises:
        InputError: if the classes are not the network's.
        FileError: if there are no images, or no class folders.
    """
    by_name = class_names is not None and not sorted_folders
    names = tuple(class_names or ())
    if not isinstance(images, LabelledImages):
        root = _images_root(Path(images))
        if by_name and is_listing(root):
            # A label that is not one of the classes is an error there, so none can be missing by a misspelt name.
            return find_labelled_images(root, names)
        if by_name:
            # Every class has a folder, if only an empty one: a misspelt one would else pass for a class without images.
            folders = [item.name for item in root.iterdir() if item.is_dir() and not item.name.startswith(".")]
            _require_same(names, folders, f"folders in '{root}'")
            return find_labelled_images(root, names)
        images = find_labelled_images(root)
    if len(images) == 0:
        raise InputError("There are no images to evaluate on.")
    if by_name:
        _require_same(names, images.class_names, "classes of the images")
        places = np.array([names.index(name) for name in images.class_names], np.int32)
        return LabelledImages(images.paths, places[images.labels], names)
    return LabelledImages(images.paths, images.labels, names) if len(names) == len(images.class_names) else images


def require_as_many(network: str, outputs: int, images: LabelledImages) -> None:
    """Raises `InputError` unless the network has an output for each class of the images."""
    if outputs != len(images.class_names):
        raise InputError(
            f"'{network}' has {outputs} outputs, and the images are in {len(images.class_names)} classes "
            f"({_listed(images.class_names)}). Each output needs its class folder; sorted by name, they are taken for "
            "the outputs in their order."
        )


def _images_root(root: Path) -> Path:
    if is_listing(root):
        return root
    if not root.is_dir():
        raise FileError(f"The folder '{root}' of labelled images does not exist. Check the path.")
    for name in VALIDATION_FOLDERS:
        inside = root / name
        # A class may be called 'test'; its folder has images inside, and no class folders.
        if inside.is_dir() and any(item.is_dir() and not item.name.startswith(".") for item in inside.iterdir()):
            return inside
    return listing_in(root, VALIDATION_FOLDERS) or root


def _require_same(expected: Sequence[str], found: Sequence[str], what: str) -> None:
    unknown, missing = sorted(set(found) - set(expected)), sorted(set(expected) - set(found))
    if not unknown and not missing:
        return
    parts = [f"unknown to the network: {_listed(unknown)}"] if unknown else []
    parts += [f"missing: {_listed(missing)}"] if missing else []
    raise InputError(
        f"The {what} are not the network's {len(expected)} classes; {'; '.join(parts)}. Name the folders like the "
        "classes (an empty one for a class without images), or, if the sorted folders stand in the order of the "
        "network's outputs as ImageNet's do, pass --sorted-folders (sorted_folders=True)."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
