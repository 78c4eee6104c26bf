"""Reading images as Pillow does, and preparing them as the published accuracies were measured."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repvgg.base.errors import FileError, ImageError, InputError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.data import find_images, load_image, prepare_image, read_batch

PLAIN = Preprocessing(crop=16, resize=16, mean=(0.0,) * 3, std=(1.0,) * 3)


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (31, 77), (224, 224), (5, 300)])
def test_resize_and_crop_are_pillows(size: tuple[int, int]) -> None:
    """Shorter side to `resize` with Pillow's bilinear filter, then the centre: written out once more."""
    image, preprocessing = picture(*size), Preprocessing(crop=28, resize=32)
    width, height = size
    scale = 32 / min(size)
    resized = image.resize((max(28, round(width * scale)), max(28, round(height * scale))), Image.Resampling.BILINEAR)
    top, left = round((resized.height - 28) / 2), round((resized.width - 28) / 2)
    expected = np.asarray(resized, np.float32)[top : top + 28, left : left + 28] / 255
    expected = (expected - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    result = prepare_image(image, preprocessing)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK", "1", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp", ".bmp", ".gif"])
def test_every_mode_and_format(mode: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"image{suffix}"
    try:
        picture(20, 18, mode).save(path)
    except (OSError, ValueError):
        # Not every format holds every mode.
        picture(20, 18).save(path)
    assert load_image(path).mode == "RGB"
    assert load_image(path, channels=1).mode == "L"
    assert read_batch([path], PLAIN).shape == (1, 16, 16, 3)


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    read = np.asarray(load_image(tmp_path / "deep.png", channels=1))
    np.testing.assert_allclose(read, ramp / 257, atol=0.51)


def test_orientation_of_the_camera(tmp_path: Path) -> None:
    """EXIF orientation 6: the file's first row is the picture's right edge."""
    image = picture(20, 10)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.png", exif=exif)
    loaded = load_image(tmp_path / "turned.png")
    assert loaded.size == (10, 20)
    np.testing.assert_array_equal(np.asarray(loaded), np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<html>not found</html>", "cannot be read as an image"),
        (None, "cannot be read as an image"),
    ],
)
def test_files_that_are_no_images(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    if content is None:
        picture(200, 200).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(FileError, match=message) as caught:
        load_image(path)
    assert "photo.jpg" in str(caught.value)


def test_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(100, 100).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="decompression bomb"):
        load_image(tmp_path / "large.png")


def test_finding_images(tmp_path: Path) -> None:
    for name in ("b/2.png", "a/1.JPG", "c.txt", "a/.hidden"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert find_images([tmp_path]) == [tmp_path / "a/1.JPG", tmp_path / "b/2.png"]
    assert find_images([tmp_path / "c.txt"]) == [tmp_path / "c.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="contains no images"):
        find_images([tmp_path / "empty"])
    with pytest.raises(FileError, match="does not exist"):
        find_images([tmp_path / "nowhere"])


def test_preprocessing_refuses_nonsense() -> None:
    with pytest.raises(InputError, match=r"`crop` \(=32\) must be at least 1 and at most `resize` \(=16\)"):
        Preprocessing(crop=32, resize=16)
    with pytest.raises(InputError, match=r"1, 3 or 4 values each\. Received 2 and 3"):
        Preprocessing(mean=(0.5, 0.5))
    with pytest.raises(InputError, match="above 0"):
        Preprocessing(std=(0.1, 0.0, 0.1))


def test_metadata_survive_json() -> None:
    metadata = Metadata("RepVGG-A0", "deploy", ("größe", "b"), PLAIN, "here", {"passed": True})
    assert Metadata.from_json(metadata.to_json()) == metadata
    for text in ("", "[]", "{}", '{"repvgg": 2}', '{"repvgg": 1, "color": 3}'):
        with pytest.raises(FileError, match=r"metadata"):
            Metadata.from_json(text)
