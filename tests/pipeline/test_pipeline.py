"""Batches: a pure function of seed and step, cropped as torchvision defines it, prepared as Pillow does it."""

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers import small_network
from hostile_images import encoded, jpeg, picture
from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data import load_image, prepare_image
from repvgg.data.augmentation import Augmentation, RandAugment
from repvgg.data.folder import LabelledImages, find_labelled_images
from repvgg.data.scan import scan
from repvgg.pipeline import (
    DataShard,
    FolderSource,
    RecordSource,
    evaluation_batches,
    steps_per_epoch,
    training_batches,
    write_records,
)
from repvgg.pipeline import batches as pipeline_batches
from repvgg.pipeline.crops import NUMBERS, random_window
from repvgg.pipeline.decode import decode_jpeg, decode_window
from repvgg.pipeline.resize import resize, resize_and_crop
from repvgg.pipeline.sampling_order import Plan, permutation

BATCH = 8
SMALL = Preprocessing(crop=16, resize=18)
EVERYTHING = Augmentation(rand_augment=RandAugment(), random_erasing=0.5, mixup=0.4, cutmix=1.0)
PAIRED = Augmentation(mixup=0.4, cutmix=1.0)
AUGMENTATIONS = {
    "default": Augmentation(),
    "everything": EVERYTHING,
    "auto_augment": Augmentation(auto_augment=True, mixup=0.2),
}
Batches = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> LabelledImages:
    """30 images of 3 classes; every fifth is not a JPEG."""
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for index in range(30):
        path = root / f"class{index % 3}" / f"{index:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encoded(picture(rng), "PNG") if index % 5 == 0 else jpeg(rng))
    return find_labelled_images(root)


@pytest.fixture(scope="module")
def sources(images: LabelledImages, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    report = scan(images)
    assert report.plain.sum() == 24
    shards = tmp_path_factory.mktemp("records") / "shards"
    write_records({"train": report, "val": report}, shards, shards=4)
    return {
        "mixed": FolderSource(images, report.plain),
        "plain": FolderSource(images.subset(report.plain), np.ones(24, bool)),
        "pillow": FolderSource(images),
        "records": RecordSource.open(shards)["train"],
    }


def batches(
    source: Any, first: int, last: int, augmentation: Augmentation = AUGMENTATIONS["default"], **options: Any
) -> Batches:
    settings = {"batch_size": BATCH, "seed": 5, **options}
    found = training_batches(source, SMALL, augmentation, first_step=first, last_step=last, **settings)
    return [(images.numpy(), targets.numpy()) for images, targets in found]


def assert_equal(first: Batches, second: Batches) -> None:
    assert len(first) == len(second) > 0
    for before, after in zip(first, second, strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other, strict=True)


@pytest.mark.parametrize(
    ("kind", "augmentation"),
    [
        ("mixed", "everything"),
        ("records", "auto_augment"),
        ("plain", "default"),
        ("pillow", "default"),
        ("records", "default"),
    ],
)
def test_a_step_is_the_same_from_wherever_one_begins(kind: str, augmentation: str, sources: dict[str, Any]) -> None:
    source, settings = sources[kind], AUGMENTATIONS[augmentation]
    whole = batches(source, 0, 8, settings)
    tf.random.set_seed(99)
    assert_equal(whole[2:7], batches(source, 2, 7, settings))
    images, targets = whole[0]
    assert images.shape == (BATCH, 16, 16, 3)
    assert targets.shape == (BATCH, 3)
    assert images.dtype == targets.dtype == np.float32
    assert np.isfinite(images).all()
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize(("kind", "count"), [("mixed", 4), ("records", 2)])
def test_shards_are_parts_of_the_same_batch(kind: str, count: int, sources: dict[str, Any]) -> None:
    parts = [batches(sources[kind], 2, 5, PAIRED, shard=DataShard(index, count)) for index in range(count)]
    whole = batches(sources[kind], 2, 5, PAIRED)
    joined = [tuple(np.concatenate(sides) for sides in zip(*step, strict=True)) for step in zip(*parts, strict=True)]
    assert_equal(whole, joined)  # type: ignore[arg-type]


def test_how_many_are_read_at_once_does_not_matter(sources: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches(sources["mixed"], 0, 6)
    for threads in (1, 7):
        monkeypatch.setattr(pipeline_batches, "CALLS", threads)
        assert_equal(expected, batches(sources["mixed"], 0, 6))


def test_seeds_and_steps_differ(sources: dict[str, Any]) -> None:
    first, second = batches(sources["mixed"], 0, 2)
    (other,) = batches(sources["mixed"], 0, 1, seed=6)
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("kind", ["folder", "records"])
def test_an_epoch_has_every_image_once_and_another_order(kind: str, tmp_path: Path) -> None:
    """22 images that are told by their colour, in batches of 4: 5 steps, and 2 images left out."""
    for index in range(22):
        path = tmp_path / "images" / f"class{index % 2}" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (20, 20), (index * 10, 0, 0)).save(path)
    images = find_labelled_images(tmp_path / "images")
    source: Any = FolderSource(images)
    if kind == "records":
        write_records({"train": scan(images), "val": scan(images)}, tmp_path / "shards", shards=3)
        source = RecordSource.open(tmp_path / "shards")["train"]
    assert steps_per_epoch(source, 4) == 5
    levels = Preprocessing(crop=8, resize=8, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    found = training_batches(source, levels, Augmentation(), batch_size=4, seed=0, first_step=0, last_step=40)
    rows = [
        (image[0, 0, 0] / 10, target)
        for batch in found.as_numpy_iterator()
        for image, target in zip(*batch, strict=True)
    ]
    numbers = np.array([row[0] for row in rows]).round().astype(int)
    np.testing.assert_array_equal([row[1].argmax() for row in rows], numbers % 2)
    epochs = numbers.reshape(8, 20)
    assert all(len(set(epoch)) == 20 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8
    assert len({frozenset(epoch) for epoch in epochs}) > 1, "the same images are left out each time"
    # Neighbours in one epoch are none in another: with 19 pairs of 22 * 21 in each, two epochs share 0.8 on average.
    pairs = [set(itertools.pairwise(epoch)) for epoch in epochs]
    assert np.mean([len(pairs[0] & other) for other in pairs[1:]]) < 4


def test_order_of_an_epoch_is_uniform() -> None:
    """Which image comes first, in 300 epochs with each of 4 seeds: chi-square, below its 99.99 % quantile."""
    orders = np.array(
        [
            [permutation(10, Plan(10, 10, seed, 0, 1, DataShard()).stream(0, tf.constant(epoch, tf.int64)))]
            for seed in (0, 1, 256, 2**31 - 1)
            for epoch in range(300)
        ]
    ).reshape(1200, 10)
    assert (np.sort(orders, axis=1) == np.arange(10)).all()
    assert len({tuple(order) for order in orders}) > 1190
    counts = np.bincount(orders[:, 0], minlength=10)
    assert ((counts - 120) ** 2 / 120).sum() < 33.7


def test_mirrored_half_of_the_time(tmp_path: Path) -> None:
    gradient = np.tile(np.arange(0, 250, 5, dtype=np.uint8)[:, None], (50, 1, 3))
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(gradient).save(tmp_path / name / "1.png")
    source = FolderSource(find_labelled_images(tmp_path))
    for flip, least, most in ((True, 60, 140), (False, 0, 0)):
        found = batches(source, 0, 100, Augmentation(flip=flip), batch_size=2)
        mirrored = sum(int(image[0, 0, 0] > image[0, -1, 0]) for images, _ in found for image in images)
        assert least <= mirrored <= most


def expected_window(
    height: int, width: int, numbers: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]
) -> tuple[int, int, int, int]:
    """RandomResizedCrop.get_params of torchvision, from given random numbers."""
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * numbers[attempt])
        low, high = np.log(ratio)
        aspect = math.exp(low + (high - low) * numbers[10 + attempt])
        columns, rows = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < columns <= width and 0 < rows <= height:
            return int(numbers[20] * (height - rows + 1)), int(numbers[21] * (width - columns + 1)), rows, columns
    if width / height < ratio[0]:
        columns, rows = width, round(width / ratio[0])
    elif width / height > ratio[1]:
        columns, rows = round(height * ratio[1]), height
    else:
        columns, rows = width, height
    return (height - rows) // 2, (width - columns) // 2, rows, columns


@pytest.mark.parametrize("size", [(160, 240), (97, 31), (8, 8), (10, 1000), (1000, 10), (1, 1), (3000, 4000)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.9, 1.0)])
def test_crops_are_torchvisions(size: tuple[int, int], scale: tuple[float, float], rng: np.random.Generator) -> None:
    augmentation = Augmentation(crop_scale=scale)
    numbers = rng.random((200, NUMBERS), dtype=np.float32)
    windows = tf.vectorized_map(lambda row: random_window(*size, row, augmentation), tf.constant(numbers)).numpy()
    expected = np.array([expected_window(*size, row.astype(float), scale, (3 / 4, 4 / 3)) for row in numbers])
    # Single precision rounds one side in ten thousand the other way; the place follows.
    assert np.abs(windows - expected).max() <= 1
    assert (windows != expected).any(axis=1).mean() < 0.02
    top, left, rows, columns = windows.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= size[0]).all()
    assert (left + columns <= size[1]).all()


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_part_of_a_jpeg_is_pillows(subsampling: int, progressive: bool, rng: np.random.Generator) -> None:
    """To the last bit, and at the window's border as well."""
    content = jpeg(rng, subsampling=subsampling, progressive=progressive)
    with Image.open(io.BytesIO(content)) as opened:
        whole = np.asarray(opened.convert("RGB"))
    height, width, _ = whole.shape
    np.testing.assert_array_equal(decode_jpeg(content, 3), whole)
    for _ in range(40):
        rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
        window = tf.constant([top, left, rows, columns])
        part = decode_window(content, window, height, width, 3)
        np.testing.assert_array_equal(part, whole[top : top + rows, left : left + columns])


@pytest.mark.parametrize("size", [(16, 16), (31, 56), (57, 64), (160, 241), (7, 90), (5, 6), (1, 1), (15, 24)])
@pytest.mark.parametrize("side", [16, 37])
def test_resize_is_pillows(size: tuple[int, int], side: int, rng: np.random.Generator) -> None:
    """Without its rounding to grey levels after each direction: half a level each, and a little for the weights.

    Where a direction shrinks by less than half again, it is Pillow's without antialiasing (its affine transformation).
    """
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    result = resize(tf.constant(pixels), side).numpy()
    assert result.shape == (side, side, 3)
    image = Image.fromarray(pixels)
    antialiased = [length >= 1.5 * side or length <= side for length in size]
    if not all(antialiased):
        expected = plainly_resized(image, side, rows=not antialiased[0], columns=not antialiased[1])
    else:
        expected = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(result - expected).max() < 1.01
    assert abs((result - expected).mean()) < 0.1


def plainly_resized(image: Image.Image, side: int, *, rows: bool, columns: bool) -> np.ndarray:
    """Linear interpolation between two neighbours in the directions named, Pillow's antialiased filter in the other."""
    width, height = image.size
    image = image.resize((width if columns else side, height if rows else side), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.float64)
    for axis, plain in enumerate((rows, columns)):
        if plain:
            length = pixels.shape[axis]
            places = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
            below = np.floor(places).astype(int)
            above = np.minimum(below + 1, length - 1)
            share = (places - below).reshape([-1 if index == axis else 1 for index in range(3)])
            pixels = pixels.take(below, axis) * (1 - share) + pixels.take(above, axis) * share
    return pixels.astype(np.float32)


def test_photos_are_close_to_antialiased_ones(rng: np.random.Generator) -> None:
    """Where nothing is antialiased, 1.5 times as many pixels at the most."""
    smooth = np.asarray(picture(rng).resize((55, 55), Image.Resampling.BICUBIC), np.uint8)
    expected = np.asarray(Image.fromarray(smooth).resize((37, 37), Image.Resampling.BILINEAR), np.float32)
    assert np.abs(resize(tf.constant(smooth), 37).numpy() - expected).mean() < 2


@pytest.mark.parametrize("size", [(16, 16), (31, 17), (33, 64), (160, 240), (161, 97), (7, 90), (300, 5), (1, 1)])
@pytest.mark.parametrize(("to", "crop"), [(18, 16), (28, 28), (57, 49), (256, 224)])
def test_evaluation_is_pillows_within_a_grey_level(
    size: tuple[int, int], to: int, crop: int, rng: np.random.Generator
) -> None:
    pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    plain = Preprocessing(crop=crop, resize=to, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    difference = np.abs(resize_and_crop(tf.constant(pixels), to, crop) - prepare_image(Image.fromarray(pixels), plain))
    assert difference.max() < 1.001
    # Where halves are frequent and it cannot be told how Pillow rounds them; otherwise one pixel in a hundred.
    assert (difference > 0.001).mean() < 0.15


@pytest.mark.parametrize("kind", ["mixed", "plain", "pillow", "records"])
@pytest.mark.parametrize("channels", [3, 1])
def test_evaluation_of_files(kind: str, channels: int, images: LabelledImages, sources: dict[str, Any]) -> None:
    preprocessing = SMALL if channels == 3 else Preprocessing(crop=16, resize=18, mean=(0.4,), std=(0.2,))
    source = sources[kind]
    # The shards of training images are shuffled; those of others keep their order.
    paths = images.paths if kind != "plain" else sources["plain"].images.paths
    if kind == "records":
        source = RecordSource.open(source.shards[0].path.parent)["val"]
    found = [
        (batch.numpy(), labels.numpy()) for batch, labels in evaluation_batches(source, preprocessing, batch_size=7)
    ]
    assert [len(labels) for _, labels in found[:-1]] == [7] * (len(paths) // 7)
    batch, labels = (np.concatenate([pair[side] for pair in found]) for side in (0, 1))
    np.testing.assert_array_equal(labels, source.labels, strict=True)
    expected = np.stack([prepare_image(load_image(path, channels), preprocessing) for path in paths])
    assert batch.dtype == np.float32
    assert (np.abs(batch - expected) * np.float32(preprocessing.std) * 255).max() < 1.001


@pytest.mark.parametrize("kind", ["mixed", "records"])
def test_shards_of_an_evaluation(kind: str, sources: dict[str, Any]) -> None:
    """30 images in batches of 8: the last is short, and the second process gets 2 images of it or none."""
    whole = list(evaluation_batches(sources[kind], SMALL, batch_size=8))
    parts = [
        list(evaluation_batches(sources[kind], SMALL, batch_size=8, shard=DataShard(index, 2))) for index in (0, 1)
    ]
    assert [[len(labels) for _, labels in part] for part in parts] == [[4, 4, 4, 4], [4, 4, 4, 2]]
    for step, (images, labels) in enumerate(whole):
        np.testing.assert_array_equal(images, np.concatenate([part[step][0] for part in parts]))
        np.testing.assert_array_equal(labels, np.concatenate([part[step][1] for part in parts]))


def test_numbers_that_make_no_batches(sources: dict[str, Any]) -> None:
    source = sources["mixed"]
    with pytest.raises(InputError, match=r"There are 30 images, fewer than one batch \(`batch_size` is 31\)"):
        steps_per_epoch(source, 31)
    with pytest.raises(InputError, match=r"`batch_size` \(=8\) must be a multiple of the number of processes \(=3\)"):
        batches(source, 0, 1, shard=DataShard(0, 3))
    with pytest.raises(InputError, match=r"`batch_size` \(=0\)"):
        batches(source, 0, 1, batch_size=0)
    with pytest.raises(InputError, match=r"`index` \(=2\) must be at least 0 and below `count` \(=2\)"):
        DataShard(2, 2)
    with pytest.raises(InputError, match=r"`seed` \(=-1\)"):
        batches(source, 0, 1, seed=-1)
    with pytest.raises(InputError, match=r"`first_step` \(=3\)"):
        batches(source, 3, 2)
    with pytest.raises(InputError, match=r"pairs of images, and each process has 3 of a batch of 6"):
        batches(source, 0, 1, PAIRED, batch_size=6, shard=DataShard(0, 2))
    with pytest.raises(InputError, match="`plain` has 3 values for 30 images"):
        FolderSource(source.images, np.ones(3, bool))
    with pytest.raises(InputError, match="no images to make batches of"):
        FolderSource(source.images.subset([]))


@pytest.mark.backends
def test_feeds_a_model_on_every_backend(sources: dict[str, Any]) -> None:
    import keras

    model = small_network(num_classes=3, input_shape=(16, 16, 3))
    model.compile(keras.optimizers.SGD(0.01), keras.losses.CategoricalCrossentropy(from_logits=True))
    found = training_batches(
        sources["mixed"], SMALL, Augmentation(mixup=0.2), batch_size=BATCH, seed=0, first_step=0, last_step=4
    )
    assert found.cardinality().numpy() == 4
    history = model.fit(found, epochs=1, shuffle=False, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    logits = model.predict(evaluation_batches(sources["mixed"], SMALL, batch_size=7), verbose=0)
    assert logits.shape == (30, 3)
