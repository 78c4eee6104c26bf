"""Which images are calibrated on: balanced, by a seed, prepared as the network wants them."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.quantization import calibration_images
from repvgg.quantization.calibration import choose_balanced

GREY = Preprocessing(crop=4, resize=4, mean=(0.0,), std=(1 / 255,))
"""An image is then its own pixels."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes of 12, 3 and 7 images; the pixel of each is ten times its class, and its number."""
    for label, count in enumerate((12, 3, 7)):
        (tmp_path / f"class{label}").mkdir()
        for number in range(count):
            Image.new("L", (4, 4), 20 * label + number).save(tmp_path / f"class{label}" / f"{number:02d}.png")
    return tmp_path


def chosen(folder: Path, count: int, seed: int = 0) -> list[int]:
    images = calibration_images(folder, GREY, count, seed)
    assert images.dtype == np.float32
    assert images.shape[1:] == (4, 4, 1)
    return [round(float(image[0, 0, 0])) for image in images]


def test_classes_are_balanced_as_far_as_they_go(folder: Path) -> None:
    assert Counter(pixel // 20 for pixel in chosen(folder, 6)) == {0: 2, 1: 2, 2: 2}
    assert Counter(pixel // 20 for pixel in chosen(folder, 15)) == {0: 6, 1: 3, 2: 6}
    assert Counter(pixel // 20 for pixel in chosen(folder, 100)) == {0: 12, 1: 3, 2: 7}


@pytest.mark.parametrize("count", [1, 2, 4, 7, 20])
def test_as_many_as_asked_for_and_none_twice(folder: Path, count: int) -> None:
    pixels = chosen(folder, count)
    assert len(pixels) == len(set(pixels)) == count


def test_the_seed_chooses(folder: Path) -> None:
    assert chosen(folder, 6, seed=1) == chosen(folder, 6, seed=1)
    assert len({tuple(sorted(chosen(folder, 6, seed=seed))) for seed in range(5)}) > 1


def test_the_last_round_favours_no_class() -> None:
    groups = [[Path(f"{name}{number}") for number in range(9)] for name in "abcd"]
    firsts = {choose_balanced(groups, 1, seed)[0].name[0] for seed in range(40)}
    assert firsts == set("abcd")


def test_a_folder_without_classes_and_paths(folder: Path) -> None:
    assert len(set(chosen(folder / "class0", 5))) == 5
    paths = sorted((folder / "class2").iterdir())
    images = calibration_images(paths, GREY, 3)
    assert {round(float(image[0, 0, 0])) // 20 for image in images} == {2}


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array,
        iter,
        lambda array: [array[:2], array[2:]],
        lambda array: ((part, np.zeros(len(part))) for part in (array[:2], array[2:])),
    ],
    ids=["array", "single images", "batches", "data set"],
)
def test_images_that_are_prepared_already(make: Callable[[np.ndarray], Any]) -> None:
    array = np.arange(5 * 2 * 2 * 3, dtype=np.float32).reshape(5, 2, 2, 3)
    np.testing.assert_array_equal(calibration_images(make(array)), array)
    assert len(calibration_images(make(array), count=3)) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((0, 4, 4, 3)), r"at least one. Received the shape \(0, 4, 4, 3\)"),
        (np.zeros((4, 4, 3)), r"come as \(N, H, W, C\)"),
        (np.full((1, 4, 4, 3), np.nan), "not finite"),
        ([], "the iterable is empty"),
        ([np.zeros((4, 4, 3)), np.zeros((5, 5, 3))], r"of one size. Received: \(4, 4, 3\), \(5, 5, 3\)"),
    ],
)
def test_what_are_no_images(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibration_images(source)


def test_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prepared with the network's preprocessing, and none was given"):
        calibration_images(folder)
    with pytest.raises(InputError, match="at least 1 image"):
        calibration_images(folder, GREY, 0)
    with pytest.raises(FileError, match="does not exist"):
        calibration_images(tmp_path / "nowhere", GREY)
