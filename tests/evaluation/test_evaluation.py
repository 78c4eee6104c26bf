"""Evaluating a network on labelled images: each figure against the same thing written out once more."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import repvgg
from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.data import reading
from repvgg.data.folder import LabelledImages
from repvgg.evaluation.metrics import Tally, expected_calibration_error
from repvgg.evaluation.picture import draw_evaluation
from repvgg.evaluation.report import EvaluationReport
from repvgg.runners.runner import Runner

PLAIN = Preprocessing(crop=4, resize=4, mean=(0.0,) * 3, std=(1.0,) * 3)
COLORS = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


class Brightness(Runner):
    """Three classes; the logits are the mean red, green and blue, times ten, in the order of `channels`."""

    name = "brightness"
    input_shape = (None, None, 3)

    def __init__(self, names: tuple[str, ...] | None, channels: tuple[int, ...] = (0, 1, 2), batch: int | None = None):
        self.metadata = Metadata(class_names=names, preprocessing=PLAIN)
        self.channels = list(channels)
        self.batch_size = batch
        self.batches: list[int] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        return 10 * images.mean((1, 2))[:, self.channels]


NAMED = Brightness(("red", "green", "blue"))


def paint(path: Path, color: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), color).save(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eleven images in three classes; of the reds one looks green and one looks somewhat blue."""
    root = tmp_path / "data"
    for name, color in COLORS.items():
        for index in range(3):
            paint(root / name / f"{index}.png", color)
    paint(root / "red" / "3.png", (0, 255, 0))
    paint(root / "red" / "4.png", (100, 0, 130))
    return root


def by_name(report: EvaluationReport) -> dict[str, tuple[int, float | None, float | None]]:
    return {row.name: (row.images, row.recall, row.precision) for row in report.classes}


def test_metrics_are_those_written_out(rng: np.random.Generator) -> None:
    """Batches of any size add up to what NumPy finds on all images at once."""
    count, classes = 500, 12
    logits = rng.standard_normal((count, classes)).astype(np.float32) * 2
    labels = rng.integers(0, classes, count)
    logits[np.arange(count), labels] += 1.5

    tally = Tally(classes, keep=7)
    for start, stop in ((0, 1), (1, 230), (230, 499), (499, 500)):
        tally.add(logits[start:stop], labels[start:stop], np.arange(start, stop))

    exact = logits.astype(np.float64)
    probabilities = np.exp(exact) / np.exp(exact).sum(1, keepdims=True)
    guesses = probabilities.argmax(1)
    order = np.argsort(-exact, axis=1)
    assert tally.images == count
    assert tally.in_top == sum(labels[row] in order[row, :5] for row in range(count))
    assert tally.surprise == pytest.approx(-np.log(probabilities[np.arange(count), labels]).sum(), rel=1e-12)
    confusion = np.zeros((classes, classes), int)
    for label, guess in zip(labels, guesses, strict=True):
        confusion[label, guess] += 1
    np.testing.assert_array_equal(tally.confusion, confusion)

    confidence, right = probabilities.max(1), guesses == labels
    error = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        assert tally.bin_counts[index] == inside.sum()
        if inside.any():
            error += inside.sum() / count * abs(right[inside].mean() - confidence[inside].mean())
    found = expected_calibration_error(tally.bin_counts, tally.bin_confidences, tally.bin_correct)
    assert found == pytest.approx(error, rel=1e-12)

    mistakes = sorted(np.flatnonzero(~right), key=lambda index: -confidence[index])[:7]
    assert [entry[:3] for entry in tally.worst()] == [(i, labels[i], guesses[i]) for i in mistakes]
    assert [entry[3] for entry in tally.worst()] == pytest.approx(confidence[mistakes])


def test_calibration_error_by_hand() -> None:
    """Four images at 0.8, of which 3 are right, and one at 0.6 that is wrong: 4/5 * 0.05 + 1/5 * 0.6 = 0.16."""
    tally = Tally(2, keep=9)
    confidences, labels = np.array([0.8, 0.8, 0.8, 0.8, 0.6]), np.array([0, 0, 0, 1, 1])
    tally.add(np.log(np.stack([confidences, 1 - confidences], axis=1)), labels, np.arange(5))
    error = expected_calibration_error(tally.bin_counts, tally.bin_confidences, tally.bin_correct)
    assert error == pytest.approx(0.16)
    # Upper edges belong to their bins: 0.8 = 12/15 and 0.6 = 9/15.
    assert {int(index): int(tally.bin_counts[index]) for index in np.flatnonzero(tally.bin_counts)} == {8: 1, 11: 4}


def test_equal_logits_do_not_all_count(rng: np.random.Generator) -> None:
    """A network that says nothing is right by chance: 5 of 10 classes are among its first five, not all."""
    tally = Tally(10, keep=0)
    tally.add(np.zeros((10, 10)), np.arange(10), np.arange(10))
    assert (tally.in_top, int(np.trace(tally.confusion))) == (5, 1)
    assert tally.surprise / 10 == pytest.approx(np.log(10))


def test_huge_logits_stay_finite() -> None:
    tally = Tally(2, keep=1)
    tally.add(np.array([[2e4, 0.0]], np.float32), np.array([1]), np.array([0]))
    assert tally.surprise == pytest.approx(2e4)
    assert tally.worst() == [(0, 1, 0, 1.0)]


@pytest.mark.parametrize("batch", [None, 4])
def test_report(data: Path, batch: int | None) -> None:
    """A runner of fixed batches gets the last one filled up, and what fills it is not counted."""
    runner = Brightness(("red", "green", "blue"), batch=batch)
    advanced: list[int] = []
    report = repvgg.evaluate(runner, data, batch_size=5, advance=advanced.append)
    assert (report.network, report.images, report.broken) == ("brightness", 11, ())
    assert (report.top1, report.top5) == (9 / 11, 1.0)
    assert by_name(report) == {"red": (5, 3 / 5, 1.0), "green": (3, 1.0, 3 / 4), "blue": (3, 1.0, 3 / 4)}
    np.testing.assert_array_equal(report.confusion, [[3, 1, 1], [0, 3, 0], [0, 0, 3]])
    assert [(mistake.path.name, mistake.true, mistake.predicted) for mistake in report.mistakes] == [
        ("3.png", "red", "green"),
        ("4.png", "red", "blue"),
    ]
    logits = 10 * np.array([100, 0, 130]) / 255
    assert report.mistakes[1].probability == pytest.approx((np.exp(logits) / np.exp(logits).sum())[2])
    assert sum(one.images for one in report.calibration) == 11
    assert sum(advanced) == 11
    assert set(runner.batches) == ({4} if batch else {5, 1})
    assert report.images_per_second > 0
    assert report.network_images_per_second > 0


@pytest.mark.parametrize("order", [("blue", "red", "green"), ("green", "blue", "red")])
def test_class_order_is_the_networks(data: Path, order: tuple[str, ...]) -> None:
    """The same figures by name, whatever order the outputs are in; the folders' is blue, green, red."""
    runner = Brightness(order, tuple(("red", "green", "blue").index(name) for name in order))
    report, expected = repvgg.evaluate(runner, data), repvgg.evaluate(NAMED, data)
    assert [row.name for row in report.classes] == list(order)
    assert by_name(report) == by_name(expected)
    assert report.top1 == 9 / 11

    labels = np.repeat(np.arange(3, dtype=np.int32), [3, 3, 5])
    paths = tuple(path for name in ("blue", "green", "red") for path in sorted((data / name).iterdir()))
    given = repvgg.evaluate(runner, LabelledImages(paths, labels, ("blue", "green", "red")))
    np.testing.assert_array_equal(given.confusion, report.confusion)


def test_without_class_names_folders_count_in_order(data: Path) -> None:
    report = repvgg.evaluate(Brightness(None, (2, 1, 0)), data)
    assert [row.name for row in report.classes] == ["blue", "green", "red"]
    assert report.top1 == 9 / 11
    with pytest.raises(InputError, match="'brightness' has 2 outputs, and the images are in 3 classes"):
        repvgg.evaluate(Brightness(None, (0, 1)), data)


def test_any_callable(data: Path) -> None:
    """Without metadata images are prepared ImageNet's way, 224 pixels a side."""
    seen: set[tuple[int, ...]] = set()

    def network(images: np.ndarray) -> np.ndarray:
        seen.add(images.shape)
        return images.mean((1, 2))[:, ::-1]

    assert repvgg.evaluate(network, data).images == 11
    assert seen == {(11, 224, 224, 3)}


def test_sorted_folders(data: Path) -> None:
    """Folders whose names are not the classes', but whose order is, as ImageNet's."""
    for old, new in (("blue", "n3"), ("red", "n1"), ("green", "n2")):
        (data / old).rename(data / new)
    with pytest.raises(
        InputError, match=r"unknown to the network: n1, n2, n3; missing: blue, green, red.*sorted-folde"
    ):
        repvgg.evaluate(NAMED, data)
    report = repvgg.evaluate(NAMED, data, sorted_folders=True)
    assert by_name(report)["red"] == (5, 3 / 5, 1.0)


def test_classes_that_do_not_fit(data: Path, tmp_path: Path) -> None:
    (data / "red").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"folders in .* are not the network's 3 classes; missing: red\. Name"):
        repvgg.evaluate(NAMED, data)
    (data / "red").mkdir()
    assert by_name(repvgg.evaluate(NAMED, data))["red"] == (0, None, None)
    (data / "rde").mkdir()
    with pytest.raises(InputError, match=r"unknown to the network: rde\. Name"):
        repvgg.evaluate(NAMED, data)
    with pytest.raises(FileError, match="does not exist"):
        repvgg.evaluate(NAMED, tmp_path / "nowhere")
    empty = LabelledImages((), np.zeros(0, np.int32), ("red", "green", "blue"))
    with pytest.raises(InputError, match="no images"):
        repvgg.evaluate(NAMED, empty)


def test_the_validation_folder_is_meant(data: Path) -> None:
    for name, color in COLORS.items():
        paint(data / "val" / name / "one.jpg", color)
    assert repvgg.evaluate(NAMED, data).images == 3


def test_a_class_called_test(data: Path) -> None:
    """A folder with images in it is a class, whatever it is called."""
    (data / "blue").rename(data / "test")
    assert repvgg.evaluate(Brightness(("red", "green", "test")), data).images == 11


def test_broken_files(data: Path) -> None:
    (data / "blue" / "1.png").write_text("no image")
    (data / "red" / "9.png").write_bytes(b"")
    advanced: list[int] = []
    report = repvgg.evaluate(NAMED, data, batch_size=2, advance=advanced.append)
    assert (report.images, sum(advanced)) == (10, 12)
    assert {file.path.parent.name + "/" + file.path.name for file in report.broken} == {"blue/1.png", "red/9.png"}
    assert all(str(file.path) in file.reason for file in report.broken)
    assert by_name(report)["blue"] == (2, 1.0, 2 / 3)
    assert report.top1 == 8 / 10
    with pytest.raises(FileError, match=r"9\.png' is empty"):
        repvgg.evaluate(NAMED, data, strict=True)
    for path in data.rglob("*.png"):
        path.write_text("no image")
    with pytest.raises(FileError, match="None of the 12 files is a readable image"):
        repvgg.evaluate(NAMED, data)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda images: images, r"is not a classifier: its output has the shape \(11, 224, 224, 3\)"),
        (lambda images: np.full((len(images), 3), np.nan), "not finite"),
    ],
)
def test_outputs_that_name_no_class(data: Path, network: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        repvgg.evaluate(network, data)


def test_constant_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 files: at no time are more read, and not yet run, than the batches ahead and the one under way."""
    paint(tmp_path / "one.png", (1, 2, 3))
    batch, lock = 8, threading.Lock()
    begun = finished = most = 0

    def load_image(path: Path, channels: int) -> Image.Image:
        nonlocal begun, most
        with lock:
            begun += 1
            most = max(most, begun - finished)
        return Image.new("RGB", (4, 4), (255, 0, 0) if path.name < "150" else (0, 0, 255))

    class Counting(Brightness):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            nonlocal finished
            logits = super().__call__(images)
            with lock:
                finished += len(images)
            return logits

    monkeypatch.setattr(reading, "load_image", load_image)
    paths = tuple(tmp_path / f"{index:03d}" for index in range(300))
    labels = np.repeat(np.array([0, 2], np.int32), 150)
    runner = Counting(("red", "green", "blue"))
    images = LabelledImages(paths, labels, ("red", "green", "blue"))
    report = repvgg.evaluate(runner, images, batch_size=batch, workers=4)
    assert (report.images, report.top1) == (300, 1.0)
    assert begun == 300
    assert batch < most <= batch * (reading.BATCHES_AHEAD + 1)


def test_reading_stops_when_nobody_wants_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = threading.active_count()
    monkeypatch.setattr(reading, "load_image", lambda path, channels: Image.new("RGB", (4, 4)))
    batches = reading.prepared_batches([tmp_path / str(index) for index in range(100)], PLAIN, 4, workers=3)
    assert next(batches).images.shape == (4, 4, 4, 3)
    batches.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    for options in ({"batch_size": 0}, {"batch_size": 4, "workers": 0}):
        with pytest.raises(InputError, match="must be at least 1"):
            reading.prepared_batches([], PLAIN, **options)


def test_to_dict_is_json(data: Path) -> None:
    (data / "blue" / "1.png").write_text("no image")
    report = repvgg.evaluate(NAMED, data)
    back = json.loads(json.dumps(report.to_dict()))
    assert back["confusion"] == [[3, 1, 1], [0, 3, 0], [0, 0, 2]]
    assert back["classes"][1] == {"name": "green", "images": 3, "recall": 1.0, "precision": 0.75}
    assert back["mistakes"][0]["path"].endswith("red/3.png")
    assert back["broken"][0]["path"].endswith("blue/1.png")
    assert back["calibration"][14]["upper"] == 1.0
    assert "top-1 80.00% of 10 images in 3 classes, 1 left out as unreadable." in report.summary()


@pytest.mark.parametrize("classes", [3, 20, 250])
def test_picture(tmp_path: Path, classes: int, rng: np.random.Generator) -> None:
    """Any number of classes, with names that are not a formula and without mistakes as well."""
    paint(tmp_path / "one.png", (200, 100, 0))
    names = tuple(f"$class_{index} of a long name" for index in range(classes))
    labels = rng.integers(0, classes, 60).astype(np.int32)
    logits = rng.standard_normal((60, classes)) + (3 if classes == 20 else 99) * np.eye(classes)[labels]
    position = iter(range(0, 60, 20))

    def network(images: np.ndarray) -> np.ndarray:
        start = next(position, 40)
        return logits[start : start + len(images)]

    images = LabelledImages((tmp_path / "one.png",) * 60, labels, names)
    report = repvgg.evaluate(network, images, batch_size=20)
    assert bool(report.mistakes) == (classes == 20)
    draw_evaluation(report, tmp_path / "report.png")
    with Image.open(tmp_path / "report.png") as drawn:
        assert drawn.size[0] > 1000
        assert len(drawn.convert("RGB").getcolors(1 << 24) or ()) > 50
    with pytest.raises(InputError, match="already exists"):
        draw_evaluation(report, tmp_path / "report.png")
