"""What happens to training images, operation by operation, beside Pillow's own and beside the definitions."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from hostile_images import picture
from repvgg.base.metadata import Preprocessing
from repvgg.data.augmentation import Augmentation, RandAugment
from repvgg.pipeline import auto_augment, erasing, mixing, operations
from repvgg.pipeline.normalize import normalize
from repvgg.pipeline.rand_augment import rand_augment
from repvgg.pipeline.sampling_order import DataShard, Plan

PLAN = Plan(100, 10, 3, 0, 10, DataShard())
FILL = 117.0


@pytest.fixture
def image(rng: np.random.Generator) -> Image.Image:
    """Not square, with colours that leave room at both ends."""
    return picture(rng).resize((40, 33)).point(lambda value: 20 + value * 0.8)


def run(operation: operations.Operation, image: Image.Image, strength: float) -> np.ndarray:
    result: np.ndarray = operation(tf.constant(np.asarray(image, np.float32)), tf.constant(strength), FILL).numpy()
    return result


PILLOWS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + 0.9 * strength),
    "color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + 0.9 * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + 0.9 * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * strength),
    "posterize": lambda image, strength: ImageOps.posterize(image, 8 - round(4 * abs(strength))),
    "solarize": lambda image, strength: ImageOps.solarize(image, math.ceil(255 * (1 - abs(strength)))),
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "identity": lambda image, _: image,
}


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.3, 0.9])
@pytest.mark.parametrize("name", PILLOWS)
def test_colours_are_pillows(name: str, strength: float, image: Image.Image) -> None:
    """Pillow rounds, cuts off, and rounds grey to whole levels before it blends: two levels at most."""
    expected = np.asarray(PILLOWS[name](image, strength), np.float32)
    exact = name in {"posterize", "solarize", "equalize", "invert", "identity"}
    result = run(getattr(operations, name), image, strength)
    assert np.abs(result - expected).max() <= (0 if exact else 2)
    assert np.abs(result - expected).mean() < 0.6


def test_equalize_of_one_colour() -> None:
    flat = Image.new("RGB", (9, 8), (3, 130, 255))
    np.testing.assert_array_equal(run(operations.equalize, flat, 1), np.asarray(ImageOps.equalize(flat), np.float32))
    np.testing.assert_array_equal(run(operations.autocontrast, flat, 1), np.asarray(flat, np.float32))


def affine(image: Image.Image, matrix: tuple[float, float, float, float], shift: tuple[float, float]) -> np.ndarray:
    """Pillow's: the output at (x, y) comes from matrix @ ((x, y) - centre) + centre + shift, in pixels' corners."""
    (xx, xy, yx, yy), (across, down) = matrix, shift
    middle_x, middle_y = image.width / 2, image.height / 2
    data = (
        xx, xy, middle_x - xx * middle_x - xy * middle_y + across,
        yx, yy, middle_y - yx * middle_x - yy * middle_y + down,
    )  # fmt: skip
    filled = image.transform(image.size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR, fillcolor=(117,) * 3)
    return np.asarray(filled, np.float32)


@pytest.mark.parametrize("strength", [-0.8, 0.35])
def test_geometry_is_pillows(strength: float, image: Image.Image) -> None:
    angle = math.radians(30 * strength)
    cosine, sine = math.cos(angle), math.sin(angle)
    expected = {
        operations.shear_x: affine(image, (1, 0.3 * strength, 0, 1), (0, 0)),
        operations.shear_y: affine(image, (1, 0, 0.3 * strength, 1), (0, 0)),
        operations.translate_x: affine(image, (1, 0, 0, 1), (150 / 331 * strength * 40, 0)),
        operations.translate_y: affine(image, (1, 0, 0, 1), (0, 150 / 331 * strength * 33)),
        operations.rotate: affine(image, (cosine, -sine, sine, cosine), (0, 0)),
    }
    for operation, pixels in expected.items():
        difference = np.abs(run(operation, image, strength) - pixels).max(axis=-1)
        # Both blend with the fill colour at the picture's edge, Pillow within a pixel less.
        assert (difference > 1.1).mean() < 0.06, operation
        assert (pixels == 117).all(axis=-1).any()


def test_grey_images_have_all_operations(rng: np.random.Generator) -> None:
    grey = tf.constant(rng.integers(0, 256, (12, 12, 1)).astype(np.float32))
    for which in range(len(operations.OPERATIONS)):
        result = operations.apply(grey, tf.constant(which), 0.7, FILL)
        assert result.shape == (12, 12, 1)
        assert np.isfinite(result).all()
    np.testing.assert_allclose(operations.color(grey, 0.7, FILL), grey, atol=1e-3)


def test_rand_augment_chooses_for_each_image(image: Image.Image, rng: np.random.Generator) -> None:
    pixels = tf.constant(np.asarray(image, np.float32))

    @tf.function
    def augmented(numbers: Any) -> Any:
        return rand_augment(pixels, RandAugment(2, 9), FILL, numbers)

    numbers = rng.random((60, 4), dtype=np.float32)
    found = {augmented(tf.constant(row)).numpy().tobytes() for row in numbers}
    assert len(found) > 40
    # The first two choose (of 14, without invert), the others give the sign.
    by_hand = operations.rotate(operations.solarize(pixels, -0.9, FILL), 0.9, FILL)
    chosen = [
        (operations.OPERATIONS.index(operation) + 0.5) / 14 for operation in (operations.solarize, operations.rotate)
    ]
    result = augmented(tf.constant([*chosen, 0.2, 0.7]))
    np.testing.assert_allclose(result, by_hand, atol=1e-3)


def test_magnitude_zero_changes_hardly_anything(image: Image.Image) -> None:
    pixels = tf.constant(np.asarray(image, np.float32))
    unchanged = {"autocontrast", "equalize", "invert", "solarize"}
    for which, operation in enumerate(operations.OPERATIONS):
        if operation.__name__ not in unchanged:
            np.testing.assert_allclose(operations.apply(pixels, tf.constant(which), 0.0, FILL), pixels, atol=1e-2)


def test_auto_augment_follows_the_policy(image: Image.Image) -> None:
    """Pair 17: sharpness with probability 0.4 at 7 ninths, invert with probability 0.6."""
    assert len(auto_augment.POLICY) == 25
    pixels = tf.constant(np.asarray(image, np.float32))
    sharper, inverted = lambda x, sign: operations.sharpness(x, sign * 7 / 9, FILL), lambda x: 255 - x
    for first, second, expected in (
        (0.39, 0.59, inverted(sharper(pixels, -1))),
        (0.41, 0.59, inverted(pixels)),
        (0.39, 0.61, sharper(pixels, -1)),
        (0.41, 0.61, pixels),
    ):
        result = auto_augment.auto_augment(pixels, FILL, tf.constant([17.5 / 25, first, second, 0.3, 0.8]))
        np.testing.assert_allclose(result, expected, atol=1e-3)


def test_erased_rectangles_are_torchvisions(rng: np.random.Generator) -> None:
    side, erased = 40, []
    image = tf.constant(rng.standard_normal((side, side, 3)).astype(np.float32))
    one = tf.function(lambda position, numbers: erasing.erase(image, 0.4, PLAN, position, numbers))
    for position in range(300):
        result = one(
            tf.constant(position, tf.int64), tf.constant(rng.random(erasing.NUMBERS, dtype=np.float32))
        ).numpy()
        changed = (result != image.numpy()).any(axis=-1)
        if changed.any():
            rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
            box = changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert box.all()
            erased.append((box.size / side**2, box.shape[0] / box.shape[1], result[changed]))
    assert 85 <= len(erased) <= 155
    areas, ratios, noise = zip(*erased, strict=True)
    assert 0.015 < min(areas) < 0.05
    assert 0.28 < max(areas) < 0.35
    assert 0.2 < min(ratios) < 0.5
    assert 2 < max(ratios) < 5
    values = np.concatenate([part.ravel() for part in noise])
    assert abs(values.mean()) < 0.05
    assert abs(values.std() - 1) < 0.05


def drawn(augmentation: Augmentation, count: int, side: int = 32) -> np.ndarray:
    rng = np.random.default_rng(0)
    one = tf.function(lambda position, numbers: mixing.draw(augmentation, PLAN, position, numbers, side))
    return np.stack(
        [
            one(tf.constant(position, tf.int64), tf.constant(rng.random(mixing.NUMBERS, dtype=np.float32))).numpy()
            for position in range(count)
        ]
    )


@pytest.mark.parametrize("alpha", [0.2, 1.0, 0.001])
def test_mixup_shares_are_of_the_beta_distribution(alpha: float) -> None:
    shares = drawn(Augmentation(mixup=alpha), 800)[:, 0]
    assert ((shares >= 0) & (shares <= 1)).all()
    variance = 1 / (4 * (2 * alpha + 1))
    # Four standard errors of the mean.
    assert abs(shares.mean() - 0.5) < 4 * math.sqrt(variance / 800)
    assert abs(shares.var() - variance) < 0.03


def test_mixup_blends_pairs(rng: np.random.Generator) -> None:
    images, targets = rng.random((6, 8, 8, 3), dtype=np.float32), np.eye(6, dtype=np.float32)
    settings = drawn(Augmentation(mixup=0.5), 6, side=8)
    mixed, labels = mixing.mix(tf.constant(images), tf.constant(targets), tf.constant(settings), rectangles=False)
    for row in range(6):
        share, partner = settings[row, 0], row ^ 1
        np.testing.assert_allclose(mixed[row], images[row] * (1 - share) + images[partner] * share, atol=1e-6)
        np.testing.assert_allclose(labels[row], targets[row] * (1 - share) + targets[partner] * share, atol=1e-6)


def test_cutmix_takes_rectangles_as_large_as_the_labels_share(rng: np.random.Generator) -> None:
    images, targets = rng.random((40, 16, 16, 3), dtype=np.float32), np.eye(40, dtype=np.float32)
    settings = drawn(Augmentation(cutmix=1.0), 40, side=16)
    mixed, labels = (
        value.numpy()
        for value in mixing.mix(tf.constant(images), tf.constant(targets), tf.constant(settings), rectangles=True)
    )
    shares = []
    for row in range(40):
        from_partner = (mixed[row] == images[row ^ 1]).all(axis=-1)
        assert (from_partner | (mixed[row] == images[row]).all(axis=-1)).all()
        assert labels[row, row ^ 1] == pytest.approx(from_partner.mean(), abs=1e-6)
        assert labels[row].sum() == pytest.approx(1)
        shares.append(from_partner.mean())
    assert len(set(shares)) > 20


def test_both_are_taken_by_turns() -> None:
    rectangles = drawn(Augmentation(mixup=0.5, cutmix=0.5), 200)[:, 1] == 1
    assert 60 < rectangles.sum() < 140


def test_normalized_as_prepare_image_does(rng: np.random.Generator, tmp_path: Path) -> None:
    for preprocessing in (Preprocessing(crop=9, resize=9), Preprocessing(crop=9, resize=9, mean=(0.3,), std=(0.2,))):
        pixels = rng.integers(0, 256, (9, 9, preprocessing.channels)).astype(np.float32)
        expected = (pixels / 255 - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
        np.testing.assert_allclose(normalize(tf.constant(pixels), preprocessing), expected, atol=1e-6)
