"""Image files as they are found in the wild, good and bad: what each must be taken for, and why."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

Verdict = Literal["plain", "usable", "broken"]


@dataclass(frozen=True)
class Kind:
    make: Callable[[np.random.Generator], bytes]
    suffix: str
    verdict: Verdict
    reason: str = ""


def picture(rng: np.random.Generator, mode: str = "RGB", least: int = 8) -> Image.Image:
    """Smooth colours with some noise, 8 to 60 pixels a side."""
    width, height = (int(side) for side in rng.integers(least, 60, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((width, height), 3)
    noisy = np.asarray(coarse, np.int16) + rng.integers(-9, 10, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def jpeg(rng: np.random.Generator, mode: str = "RGB", **options: Any) -> bytes:
    quality, subsampling = int(rng.integers(40, 96)), int(rng.integers(0, 3))
    return encoded(picture(rng, mode), "JPEG", **{"quality": quality, "subsampling": subsampling, **options})


def rotated(rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(2, 9))
    return jpeg(rng, exif=exif)


def transparent_palette(rng: np.random.Generator) -> bytes:
    return encoded(picture(rng).quantize(16), "PNG", transparency=bytes(rng.integers(0, 256, 16, dtype=np.uint8)))


def sixteen_bits(rng: np.random.Generator) -> bytes:
    return encoded(Image.fromarray(rng.integers(0, 2**16, (20, 31), dtype=np.uint16)), "PNG")


def animated(rng: np.random.Generator, kind: str) -> bytes:
    frames = [picture(rng).resize((24, 17)) for _ in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def long_and_narrow(rng: np.random.Generator) -> bytes:
    size = (20000, 1) if rng.random() < 0.5 else (1, 20000)
    return encoded(Image.new("RGB", size), "PNG")


def cut(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(len(content) * rng.uniform(0.3, 0.9))]


def bomb(_: np.random.Generator) -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels wide and high."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def damaged_exif(rng: np.random.Generator) -> bytes:
    content = jpeg(rng)
    body = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + rng.bytes(20)
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + content[2:]


def stray_bytes(rng: np.random.Generator) -> bytes:
    """libjpeg skips what stands between two segments, with a warning; TensorFlow would refuse some of these files."""
    content = jpeg(rng)
    return content[:20] + b"\x01\x02\x03" + content[20:]


def without_end(rng: np.random.Generator) -> bytes:
    return jpeg(rng)[:-2]


KINDS: dict[str, Kind] = {
    "jpeg": Kind(jpeg, ".jpg", "plain"),
    "grey_jpeg": Kind(lambda rng: jpeg(rng, "L"), ".jpeg", "plain"),
    "progressive": Kind(lambda rng: jpeg(rng, progressive=True), ".JPG", "plain"),
    "restarts": Kind(lambda rng: jpeg(rng, restart_marker_blocks=2), ".jpg", "plain"),
    "trailing_bytes": Kind(lambda rng: jpeg(rng) + bytes(100), ".jpg", "plain"),
    "damaged_exif": Kind(damaged_exif, ".jpg", "plain"),
    "jpeg_named_png": Kind(jpeg, ".png", "plain"),
    "cmyk": Kind(lambda rng: jpeg(rng, "CMYK"), ".jpg", "usable"),
    "rgb_jpeg": Kind(lambda rng: jpeg(rng, keep_rgb=True, subsampling=0), ".jpg", "usable"),
    "rotated": Kind(rotated, ".jpg", "usable"),
    "stray_bytes": Kind(stray_bytes, ".jpg", "usable"),
    "png": Kind(lambda rng: encoded(picture(rng), "PNG"), ".png", "usable"),
    "png_named_jpeg": Kind(lambda rng: encoded(picture(rng), "PNG"), ".jpg", "usable"),
    "transparent_palette": Kind(transparent_palette, ".png", "usable"),
    "alpha": Kind(lambda rng: encoded(picture(rng, "RGBA"), "PNG"), ".png", "usable"),
    "sixteen_bits": Kind(sixteen_bits, ".png", "usable"),
    "animated_gif": Kind(lambda rng: animated(rng, "GIF"), ".gif", "usable"),
    "animated_webp": Kind(lambda rng: animated(rng, "WEBP"), ".webp", "usable"),
    "tiff": Kind(lambda rng: encoded(picture(rng, "CMYK"), "TIFF"), ".tif", "usable"),
    "bmp": Kind(lambda rng: encoded(picture(rng), "BMP"), ".bmp", "usable"),
    "one_pixel": Kind(lambda rng: encoded(picture(rng).resize((1, 1)), "PNG"), ".png", "usable"),
    "truncated_jpeg": Kind(lambda rng: cut(jpeg(rng), rng), ".jpg", "broken", "truncated|cannot identify|broken"),
    "truncated_png": Kind(lambda rng: cut(encoded(picture(rng), "PNG"), rng), ".png", "broken", "truncated"),
    "empty": Kind(lambda _: b"", ".jpg", "broken", "is empty"),
    "html": Kind(lambda _: b"<html>404 Not Found</html>", ".jpg", "broken", "cannot identify"),
    "noise": Kind(lambda rng: b"\xff\xd8\xff\xe0" + rng.bytes(500), ".jpg", "broken", "cannot"),
    "postscript": Kind(lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ".jpg", "broken", "cannot"),
    "long_and_narrow": Kind(long_and_narrow, ".png", "broken", "its sides are (20000 x 1|1 x 20000) pixels"),
    "bomb": Kind(bomb, ".png", "broken", "decompression bomb"),
}


def write_all(root: Path, each: int, classes: int = 2) -> dict[Path, Kind]:
    """`each` files of every kind, spread over classes; what each of them is."""
    files: dict[Path, Kind] = {}
    for number, (name, kind) in enumerate(KINDS.items()):
        rng = np.random.default_rng([7, number])
        for index in range(each):
            path = root / f"class{index % classes}" / f"{name}_{index:02}{kind.suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(kind.make(rng))
            files[path] = kind
    return files
