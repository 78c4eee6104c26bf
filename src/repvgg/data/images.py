"""Image files as the network's input, exactly as the published accuracies were measured: with Pillow's resize."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from repvgg.errors import FileError, ImageError
from repvgg.files import require_file
from repvgg.metadata import Preprocessing

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files that a search through folders takes for images; a file that is named directly may have any name."""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """All image files among `paths`: files as they are, folders searched to any depth, in a stable order.

    Raises:
        FileError: if a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            require_file(path, what="image")
            found.append(path)
            continue
        inside = sorted(item for item in path.rglob("*") if item.suffix.lower() in IMAGE_SUFFIXES and item.is_file())
        if not inside:
            raise FileError(f"The folder '{path}' holds no image. Looked for {', '.join(IMAGE_SUFFIXES)}.")
        found += inside
    return found


def load_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Reads an image file the way up it was taken, as RGB, or as grey where `channels` is 1.

    Raises:
        ImageError: if it is no image, truncated, or larger than Pillow's limit against decompression bombs.
    """
    path = Path(path)
    require_file(path, what="image")
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):
                # 16 bits a pixel; Pillow's own conversion would clip them to 255.
                image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"'{path}' cannot be read as an image: {error}. Is it damaged, or another kind of file?"
        ) from error


def prepare_image(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Resizes, crops and normalizes: (crop, crop, channels) in float32."""
    width, height = image.size
    scale = preprocessing.resize / min(width, height)
    size = (max(preprocessing.crop, round(width * scale)), max(preprocessing.crop, round(height * scale)))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    crop = preprocessing.crop
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    image = image.crop((left, top, left + crop, top + crop))
    pixels = np.asarray(image, dtype=np.float32).reshape(crop, crop, preprocessing.channels) / 255
    mean, std = (np.asarray(values, dtype=np.float32) for values in (preprocessing.mean, preprocessing.std))
    normalized: np.ndarray = (pixels - mean) / std
    return normalized


def read_batch(paths: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Image files as one batch (N, crop, crop, channels)."""
    return np.stack([prepare_image(load_image(path, preprocessing.channels), preprocessing) for path in paths])
