"""Image files as the network's input, exactly as the published accuracies were measured: with Pillow's resize."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from repvgg.base.errors import FileError, ImageError
from repvgg.base.files import require_file
from repvgg.base.metadata import Preprocessing
from repvgg.data.jpeg import is_plain_jpeg

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
"""Files that a search through folders takes for images; a file that is named directly may have any name."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM")
"""What is read, by content. Pillow knows others, and runs another program for some of them."""

MAX_RATIO = 100
MAX_PLAIN_BYTES = 2**28

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's names for images of so many channels."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How a picture is turned upright, by what the camera wrote into its EXIF record."""


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """All image files among `paths`: files as they are, folders searched to any depth, in a stable order.

    Raises:
        FileError: if a path does not exist, or a folder contains no images.
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
            raise FileError(f"The folder '{path}' contains no images. Looked for {', '.join(IMAGE_SUFFIXES)}.")
        found += inside
    return found


def load_image(path: str | Path, channels: int = 3) -> Image.Image:
    """Reads an image file the way up it was taken, as RGB, as grey where `channels` is 1, or as RGBA where it is 4.

    Of several frames it is the first. Transparency is dropped where it is not asked for: a pixel keeps the colour that
    it has underneath. Where it is asked for and there is none, it is 255.

    Raises:
        ImageError: if it is not an image, truncated, or larger than Pillow's limit against decompression bombs.
    """
    with _opened(Path(path)) as image:
        return _upright(image, channels)


def decode_image(content: bytes, name: str, channels: int = 3, *, max_pixels: int | None = None) -> Image.Image:
    """`load_image` for a file that is in memory.

    Args:
        name: what to call it in errors.
        max_pixels: refuses larger images by their header, before anything is decoded; Pillow's own limit holds too.

    Raises:
        ImageError: for `load_image`'s reasons, or if it has more pixels.
    """
    if not content:
        raise ImageError(f"The image '{name}' is empty (0 bytes).")
    with _decoded(BytesIO(content), name, max_pixels) as image:
        return _upright(image, channels)


def check_image(path: Path) -> bool:
    """Decodes a file as `load_image` does. True if it is a plain JPEG (`repvgg.data.jpeg`) that needs no turning.

    Raises:
        ImageError: if it cannot be used: for `load_image`'s reasons, or its sides are too different.
    """
    with _opened(path) as image:
        check_sides(image.size, path)
        if image.format in {"JPEG", "MPO"} and image.mode in {"RGB", "L"}:
            turned = _orientation(image) in TURNS
            # An eighth of the size still reads the file to its end, and is twice as quick.
            image.draft(image.mode, (1, 1))
            image.load()
            return not turned and path.stat().st_size <= MAX_PLAIN_BYTES and is_plain_jpeg(path.read_bytes())
        _upright(image, 3)
        return False


def check_sides(size: tuple[int, int], path: Path | None = None) -> None:
    """Raises ImageError if an image is so long and narrow that its shorter side cannot be resized sensibly."""
    longer, shorter = max(size), max(min(size), 1)
    if longer > MAX_RATIO * shorter:
        name = f"'{path}'" if path else "The image"
        raise ImageError(
            f"{name} cannot be used: its sides are {size[0]} x {size[1]} pixels, and "
            f"the longer one may be at most {MAX_RATIO} times the shorter one. Crop it."
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file whose header has been read; whatever goes wrong until it is closed becomes an ImageError."""
    require_file(path, what="image")
    if not path.is_file():
        raise ImageError(f"'{path}' is not a regular file, and an image was expected.")
    with _decoded(path, str(path)) as image:
        yield image


@contextmanager
def _decoded(source: Path | BytesIO, name: str, max_pixels: int | None = None) -> Iterator[Image.Image]:
    try:
        with Image.open(source, formats=FORMATS) as image:
            limits = [limit for limit in (max_pixels, Image.MAX_IMAGE_PIXELS) if limit is not None]
            if limits and image.width * image.height > min(limits):
                raise Image.DecompressionBombError(
                    f"it has {image.width} x {image.height} pixels, above the limit of {min(limits)} against "
                    "decompression bombs"
                )
            yield image
    except ImageError:
        raise
    except Exception as error:
        # Pillow's readers raise whatever a damaged file makes them stumble over: a dozen kinds of exceptions.
        shown = f"'{source}'" if isinstance(source, Path) else repr(source)
        reason = str(error).replace(f" {shown}", "").rstrip(". ") or type(error).__name__
        raise ImageError(
            f"'{name}' cannot be read as an image: {reason}. Is it damaged, or another kind of file?"
        ) from error


def _upright(image: Image.Image, channels: int) -> Image.Image:
    orientation = _orientation(image)
    image.load()
    result: Image.Image = image
    if orientation in TURNS:
        result = result.transpose(TURNS[orientation])
    if result.mode.startswith("I"):
        # 16 bits a pixel; Pillow's own conversion would clip them to 255.
        result = Image.fromarray((np.asarray(result).clip(0, 65535) / 257).round().astype(np.uint8))
    if result.mode == "P" and "transparency" in result.info:
        # The same colours as by the direct way, of which Pillow warns.
        result = result.convert("RGBA")
    return result.convert(MODES[channels])


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001
        # A damaged record of the camera's says nothing about the picture.
        return 1


def prepare_image(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """Resizes, crops and normalizes: (crop, crop, channels) in float32.

    Raises:
        ImageError: if the image is so long and narrow that it would become huge.
    """
    check_sides(image.size)
    width, height = image.size
    scale = preprocessing.resize / min(width, height)
    size = (max(preprocessing.crop, round(width * scale)), max(preprocessing.crop, round(height * scale)))
    if image.mode == "RGBA":
        # Of this mode Pillow weighs colours by the fourth channel. Here it is one like the others.
        image = Image.merge("RGBX", image.split())
    if size != image.size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    crop = preprocessing.crop
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    image = image.crop((left, top, left + crop, top + crop))
    return preprocessing.normalize(np.asarray(image).reshape(crop, crop, preprocessing.channels))


def read_batch(paths: Sequence[Path], preprocessing: Preprocessing) -> np.ndarray:
    """Image files as one batch (N, crop, crop, channels)."""
    return np.stack([prepare_image(load_image(path, preprocessing.channels), preprocessing) for path in paths])
