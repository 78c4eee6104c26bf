"""From image files to class names."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repvgg.base.errors import FileError, ImageError, InputError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.evaluation.prediction import predict
from repvgg.runners.classifier import log_softmax, preprocessing_of, softmax
from repvgg.runners.runner import Runner

PREPROCESSING = Preprocessing(crop=4, resize=4, mean=(0.0,) * 3, std=(1.0,) * 3)


class Brightness(Runner):
    """Three classes; the logits are the mean red, green and blue, ten times."""

    name = "brightness"

    def __init__(self, metadata: Metadata, batch_size: int | None = None, side: int | None = None) -> None:
        self.metadata = metadata
        self.batch_size = batch_size
        self.input_shape = (side, side, 3)
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return 10 * images.mean((1, 2))


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = []
    for index, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 200, 0), (9, 9, 200)]):
        paths.append(tmp_path / f"{index}.png")
        Image.new("RGB", (8, 6), color).save(paths[-1])
    return paths


NAMED = Metadata(class_names=("red", "green", "blue"), preprocessing=PREPROCESSING)


@pytest.mark.parametrize("batch_size", [None, 2, 3])
def test_predictions_do_not_depend_on_batches(batch_size: int | None, pictures: list[Path]) -> None:
    """A runner of fixed batches gets the last one filled up, and what fills it is thrown away."""
    runner = Brightness(NAMED, batch_size)
    found = list(predict(runner, pictures, top=2, batch_size=4))
    assert [prediction.path for prediction in found] == pictures
    assert [prediction.classes[0] for prediction in found] == ["red", "green", "blue", "red", "blue"]
    assert found[3].classes == ("red", "green")
    expected = softmax(np.array([[10.0, 2000 / 255, 0.0]]))[0]
    np.testing.assert_allclose(found[3].probabilities, expected[:2], rtol=1e-5)
    assert set(runner.batches) == ({batch_size} if batch_size else {4, 1})


def test_classes_without_names_and_more_asked_than_there_are(pictures: list[Path]) -> None:
    (found, *_) = predict(Brightness(Metadata(preprocessing=PREPROCESSING)), pictures, top=9)
    assert found.classes == ("0", "1", "2")
    assert sum(found.probabilities) == pytest.approx(1)


def test_wrong_number_of_names(pictures: list[Path]) -> None:
    with pytest.raises(InputError, match="3 outputs and 1 class names"):
        list(predict(Brightness(Metadata(class_names=("one",), preprocessing=PREPROCESSING)), pictures))


def test_file_that_is_no_image(pictures: list[Path]) -> None:
    pictures[2].write_text("text")
    with pytest.raises(ImageError, match=r"2\.png"):
        list(predict(Brightness(NAMED), pictures))


def test_broken_files_are_told_of_in_order_and_left_out(pictures: list[Path]) -> None:
    """Batches are as full as without them, and each result keeps its own file."""
    pictures[0].write_text("text")
    pictures[3].write_bytes(b"")
    told: list[tuple[Path, FileError]] = []
    runner = Brightness(NAMED)
    found = list(predict(runner, pictures, batch_size=2, on_broken=lambda path, error: told.append((path, error))))
    assert [prediction.path for prediction in found] == [pictures[1], pictures[2], pictures[4]]
    assert [prediction.classes[0] for prediction in found] == ["green", "blue", "blue"]
    assert [path for path, _ in told] == [pictures[0], pictures[3]]
    assert "cannot be read as an image" in str(told[0][1])
    assert "is empty" in str(told[1][1])
    assert runner.batches == [2, 1]


def test_results_come_as_they_are_found(pictures: list[Path]) -> None:
    """The first result takes one batch, whatever comes later, and nothing after the last one wanted is run."""
    pictures[4].write_text("text")
    runner = Brightness(NAMED)
    results = predict(runner, pictures, batch_size=2)
    assert next(results).path == pictures[0]
    assert runner.batches == [2]
    results.close()  # type: ignore[attr-defined]
    assert runner.batches == [2]


def test_values_that_are_not_finite(pictures: list[Path]) -> None:
    class Diverged(Brightness):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return super().__call__(images) * np.nan

    with pytest.raises(InputError, match="not finite"):
        list(predict(Diverged(NAMED), pictures))


def test_preprocessing_that_does_not_fit() -> None:
    assert preprocessing_of(Brightness(Metadata())) == Preprocessing()
    with pytest.raises(InputError, match=r"takes images of shape \(32, 32, 3\), and it carries none"):
        preprocessing_of(Brightness(Metadata(), side=32))
    with pytest.raises(InputError, match=r"carries preprocessing for \(4, 4, 3\)"):
        preprocessing_of(Brightness(NAMED, side=32))


def test_softmax_of_large_logits() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 1e4, -1e4]])), [[0.5, 0.5, 0]])
    np.testing.assert_allclose(log_softmax(np.array([[0.0, -1e4]])), [[0, -1e4]])
