"""The demo on a handful of digits: everything it promises is there, runs and agrees."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from repvgg import demo
from repvgg.base import progress
from repvgg.base.errors import OutputExistsError
from repvgg.demo.digits import ShiftedBatches, load_digits
from repvgg.evaluation.prediction import predict
from repvgg.runners import load_runner

pytest.importorskip("sklearn")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    few = demo.Digits(
        digits.train_images[:128],
        digits.train_labels[:128],
        digits.test_images[:48],
        digits.test_labels[:48],
        digits.test_pictures[:48],
    )
    path = tmp_path_factory.mktemp("demo") / "output"
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "load_digits", lambda: few)
        patch.setattr(progress, "SILENCE", 0.05)
        demo.run(path, epochs=1, seed=0, force=False, out=Console(file=stream, width=200))
    told = stream.getvalue()
    assert "epoch   1  loss " in told, "without a terminal, a line an epoch"
    assert "training: 0 of 2 steps, 0 %, compiling, 0:00:" in told
    assert "checking both forms and the file: 0:00:" in told
    return path


def test_folder_says_what_is_in_it(output: Path) -> None:
    names = {path.name for path in output.iterdir()}
    assert names == {"README.md", "demo.png", "digits-train.keras", "digits-deploy.keras", "digits.onnx", "examples"}
    text = (output / "README.md").read_text()
    assert all(name in text for name in names - {"README.md"})
    with Image.open(output / "demo.png") as picture:
        assert picture.size == (1680, 1080)
    assert [path.name for path in output.parent.iterdir()] == ["output"]


def test_files_classify_the_examples(output: Path) -> None:
    examples = sorted((output / "examples").iterdir())
    assert len(examples) == 20
    found = [
        [prediction.classes[0] for prediction in predict(load_runner(output / name), examples)]
        for name in ("digits-train.keras", "digits.onnx")
    ]
    assert found[0] == found[1]


def test_existing_folder_is_left_alone(output: Path) -> None:
    before = (output / "README.md").stat().st_mtime_ns
    with pytest.raises(OutputExistsError, match="already exists"):
        demo.run(output, epochs=1, seed=0, force=False, out=Console(quiet=True))
    assert (output / "README.md").stat().st_mtime_ns == before


def test_split_is_fixed_and_clean() -> None:
    digits = load_digits()
    assert digits.train_images.shape == (1347, 32, 32, 3)
    assert len(digits.test_pictures) == len(digits.test_labels) == 450
    # Every class is tested about equally often.
    assert np.bincount(digits.test_labels).min() >= 43
    again = load_digits()
    np.testing.assert_array_equal(digits.test_labels, again.test_labels)
    np.testing.assert_array_equal(digits.train_images[:5], again.train_images[:5])


def test_batches_are_shifted_copies_in_a_new_order_each_epoch() -> None:
    images = np.arange(6 * 8 * 8 * 1, dtype=np.float32).reshape(6, 8, 8, 1)
    batches = ShiftedBatches(images, np.arange(6), 4, seed=0, reach=2)
    assert len(batches) == 1
    first, labels = batches[0]
    assert first.shape == (4, 8, 8, 1)
    for image, label in zip(first, labels, strict=True):
        # The centre pixel comes from at most 2 pixels away, in the image that the label says.
        row, column = divmod(int(image[4, 4, 0]) - 64 * int(label), 8)
        assert abs(row - 4) <= 2
        assert abs(column - 4) <= 2
    batches.on_epoch_end()
    assert not np.array_equal(first, batches[0][0])
    twin = ShiftedBatches(images, np.arange(6), 4, seed=0, reach=2)
    np.testing.assert_array_equal(first, twin[0][0])
