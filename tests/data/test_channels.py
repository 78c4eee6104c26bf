"""Images of one channel and of four, from the file to the network, by Pillow and by TensorFlow alike."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import Array
from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data.augmentation import Augmentation, RandAugment
from repvgg.data.folder import find_splits
from repvgg.data.images import load_image, prepare_image
from repvgg.data.scan import scan
from repvgg.pipeline import FolderSource, RecordSource, evaluation_batches, training_batches, write_records


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes, of PNG with a fourth channel, PNG and JPEG without one, and 16-bit grey."""
    root = tmp_path_factory.mktemp("channels")
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for index in range(3):
            pixels = generator.integers(0, 256, (40, 50, 4), dtype=np.uint8)
            Image.fromarray(pixels, "RGBA").save(root / name / f"fourth{index}.png")
            Image.fromarray(pixels[..., :3]).save(root / name / f"rgb{index}.png")
            Image.fromarray(pixels[..., :3]).save(root / name / f"rgb{index}.jpg", quality=95)
            Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(root / name / f"grey{index}.png")
    return root


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_is_read(channels: int, folder: Path) -> None:
    pixels = np.asarray(Image.open(folder / "cat" / "fourth0.png"))
    read = np.asarray(load_image(folder / "cat" / "fourth0.png", channels))
    if channels == 1:
        np.testing.assert_array_equal(read, np.asarray(Image.fromarray(pixels[..., :3]).convert("L")))
    else:
        np.testing.assert_array_equal(read, pixels[..., :channels])
    grey = np.asarray(load_image(folder / "cat" / "grey0.png", channels)).reshape(40, 50, channels)
    np.testing.assert_array_equal(grey[..., : min(channels, 3)], np.repeat(pixels[..., :1], min(channels, 3), axis=-1))
    if channels == 4:
        assert (grey[..., 3] == 255).all()


def test_the_fourth_channel_is_resized_like_the_others(folder: Path) -> None:
    """And weighs no colour, as Pillow's own resize of RGBA has it: it need not be transparency."""
    image = load_image(folder / "cat" / "fourth0.png", 4)
    preprocessing = Preprocessing.for_channels(4, 16, 20)
    together = preprocessing.restore(prepare_image(image, preprocessing))
    for place, band in enumerate(image.split()):
        alone = Preprocessing(16, 20, (0.0,), (1.0,))
        np.testing.assert_array_equal(together[..., place], alone.restore(prepare_image(band, alone))[..., 0])


def sources(folder: Path, tmp_path: Path) -> tuple[FolderSource, RecordSource]:
    train, val = (scan(images) for images in find_splits(folder, 0.4, 0))
    write_records({"train": train, "val": val}, tmp_path / "shards", shards=1)
    return FolderSource(val.images, val.plain), RecordSource.open(tmp_path / "shards")["val"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_folders_and_shards_give_what_pillow_gives(channels: int, folder: Path, tmp_path: Path) -> None:
    preprocessing = Preprocessing.for_channels(channels, 24, 28)
    from_folder, from_records = sources(folder, tmp_path)
    expected = np.stack(
        [
            preprocessing.restore(prepare_image(load_image(path, channels), preprocessing))
            for path in from_folder.images.paths
        ]
    )
    assert expected.shape[-1] == channels
    for source in (from_folder, from_records):
        ((images, _),) = evaluation_batches(source, preprocessing, batch_size=len(source)).as_numpy_iterator()
        difference = np.abs(preprocessing.restore(images).astype(int) - expected.astype(int))
        assert difference.max() <= 1


def test_shards_without_a_fourth_channel_say_so(folder: Path, tmp_path: Path) -> None:
    _, records = sources(folder, tmp_path)
    index = tmp_path / "shards" / "records.json"
    index.write_text(index.read_text().replace('"fourth_channel": true, ', ""))
    old = RecordSource.open(tmp_path / "shards")["val"]
    assert records.has_fourth
    evaluation_batches(old, Preprocessing.for_channels(3), batch_size=2)
    with pytest.raises(
        FileError, match=r"without the images' fourth channel, and the network takes 4\. Write them again"
    ):
        evaluation_batches(old, Preprocessing.for_channels(4), batch_size=2)


def augmented(source: Any, augmentation: Augmentation) -> Array:
    batches = training_batches(
        source,
        Preprocessing.for_channels(4, 24, 24),
        augmentation,
        batch_size=6,
        seed=0,
        first_step=0,
        last_step=1,
    )
    ((images, _),) = batches.as_numpy_iterator()
    return np.asarray(images)


@pytest.mark.parametrize("options", [{"rand_augment": RandAugment(2, 9)}, {"auto_augment": True}])
def test_colours_change_and_the_fourth_channel_does_not(options: dict[str, Any], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(6):
            pixels = generator.integers(0, 256, (40, 50, 4), dtype=np.uint8)
            # Not 127.5, to which borders that come from outside the image are filled up.
            pixels[..., 3] = 255
            Image.fromarray(pixels, "RGBA").save(tmp_path / name / f"{index}.png")
    source = FolderSource(find_splits(tmp_path, 0.2, 0)[0])
    plain, changed = augmented(source, Augmentation()), augmented(source, Augmentation(**options))
    assert np.abs(plain[..., :3] - changed[..., :3]).max() > 0.1
    assert (plain[..., 3] == 1).all()
    # Moved pixels bring what is outside with them; all others stay.
    fill = changed[..., 3] < 1
    assert fill.mean() < 0.5


@pytest.mark.parametrize("channels", [0, 2, 5])
def test_other_numbers_of_channels(channels: int) -> None:
    with pytest.raises(
        InputError, match=rf"1 channel \(grey\), 3 \(RGB\) or 4 .*, and {channels} are needed\. Train and"
    ):
        Preprocessing.for_channels(channels)
    with pytest.raises(InputError, match="`mean` and `std` need 1, 3 or 4 values each"):
        Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
