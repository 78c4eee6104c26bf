"""The example of segmentation, on synthetic scenes and a tiny backbone: what it reads, trains, proves and leaves."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import repvgg
from helpers import infer, random_images, relative_error, trained_like
from sampling import FULL

pytest.importorskip("onnxruntime")
jaccard_score = pytest.importorskip("sklearn.metrics").jaccard_score

FOLDER = Path(__file__).parents[2] / "examples" / "segmentation"
TINY = repvgg.Architecture((1, 1, 1, 1), (0.125, 0.125, 0.125, 0.125))
SIZE = (45, 62)
"""Odd on the way down, so that what is halved is not simply doubled on the way up."""


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The example's modules, as its scripts import them."""
    names = ("scenes", "networks", "picture", "train")
    # Other tests may have modules of these names.
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes of three regions: their colour says their class, and the class of the lowest rows is void."""
    folder = tmp_path_factory.mktemp("scenes")
    generator = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 2)):
        for kind in ("images", "labels"):
            (folder / part / kind).mkdir(parents=True)
        for place in range(count):
            labels = np.full((48, 64), 0, np.uint8)
            labels[16:] = generator.integers(1, 11)
            labels[16:, 20 : 30 + 5 * place] = generator.integers(1, 11)
            labels[44:] = 11
            pixels = np.stack([labels * 20, 255 - labels * 20, np.full_like(labels, 90)], -1)
            Image.fromarray(pixels).save(folder / part / "images" / f"scene{place}.png")
            Image.fromarray(labels).save(folder / part / "labels" / f"scene{place}.png")
    return folder


def test_crops_keep_pictures_and_labels_together(example: Any, data: Path) -> None:
    scenes = example.scenes.Scenes(data / "train")
    weights = scenes.class_weights()
    assert weights.shape == (12,)
    assert weights[11] == 0
    seen, mirrored = [], 0
    for epoch in range(4):
        for batch in scenes.epoch(epoch, 2, (30, 40), weights, seed=5):
            assert batch.images.shape == (2, 30, 40, 3)
            assert batch.images.dtype == np.float32
            assert batch.labels.shape == batch.weights.shape == (2, 30, 40)
            void = batch.weights == 0
            np.testing.assert_array_equal(batch.weights[~void], weights[batch.labels[~void]])
            for image, labels, ignored in zip(batch.images, batch.labels, void, strict=True):
                # Colours fall as classes rise, whatever contrast and brightness are.
                shown = {label: image[..., 1][(labels == label) & ~ignored] for label in np.unique(labels[~ignored])}
                means = [np.median(values) for _, values in sorted(shown.items())]
                assert means == sorted(means, reverse=True)
                mirrored += 1
            seen.append(batch)
    assert len(seen) == 4 * 2  # the fifth scene of an epoch makes no batch
    assert mirrored == 16
    again = list(scenes.epoch(3, 2, (30, 40), weights, seed=5))
    np.testing.assert_array_equal(again[1].images, seen[7].images)
    other = next(scenes.epoch(3, 2, (30, 40), weights, seed=6))
    assert not np.array_equal(other.images, seen[6].images)


def test_rare_classes_weigh_more(example: Any, data: Path) -> None:
    scenes = example.scenes.Scenes(data / "train")
    counts = sum(np.bincount(np.ravel(scenes.label(place)), minlength=12) for place in range(len(scenes)))
    weights = scenes.class_weights()
    present = np.flatnonzero(counts[:11])
    # Four times as rare, twice the weight.
    expected = np.sqrt(counts[0] / counts[present])
    np.testing.assert_allclose(weights[present] / weights[0], expected, rtol=1e-5)


def test_intersection_over_union_is_that_of_scikit_learn(example: Any) -> None:
    generator = np.random.default_rng(1)
    labels, predicted = generator.integers(0, 12, (3, 20, 30)), generator.integers(0, 11, (3, 20, 30))
    found = example.train.intersection_over_union(labels, predicted)
    counted = labels != 11
    wanted = jaccard_score(labels[counted], predicted[counted], average=None, labels=range(11))
    np.testing.assert_allclose(found, wanted)
    nowhere = example.train.intersection_over_union(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int))
    assert nowhere[0] == 1
    assert np.isnan(nowhere[1:]).all()


def test_disagreement_tells_ties_from_mistakes(example: Any) -> None:
    reference = np.array([[[[1.0, 0.99, -4.0], [3.0, 0.0, 0.0]]]])
    found = example.train.disagreement(reference, np.array([[[1, 0]]]))
    assert found["other_pixels"] == 1
    assert found["largest_margin"] == pytest.approx(0.01 / 4)
    assert example.train.disagreement(reference, np.array([[[0, 0]]])) == {"other_pixels": 0, "largest_margin": 0.0}


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_networks_fold_and_do_not_depend_on_the_size(name: str, example: Any) -> None:
    make = example.networks.NETWORKS[name]
    model = trained_like(make(TINY, SIZE, 11))
    assert model.output_shape == (None, *SIZE, 11)
    images = 128 + 60 * random_images((2, *SIZE, 3))
    deployed = repvgg.reparameterize(model)
    assert relative_error(infer(model, images), infer(deployed, images)) <= 1e-5
    other = make(TINY, (64, 33), 11)
    other.set_weights(model.get_weights())
    assert other.output_shape == (None, 64, 33, 11)


@FULL
def test_a_run_goes_on_and_leaves_what_it_proved(
    example: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = example.train
    scenes = example.scenes.Scenes(data / "train")

    def build(size: tuple[int, int] = SIZE) -> Any:
        return example.networks.unet(TINY, size, 11)

    def go_on(epochs: int) -> Any:
        return train.trained(lambda: build((30, 40)), scenes, tmp_path, epochs, 2, (30, 40), 1e-3, 0)

    real = train.save

    def killed(model: Any, path: Path) -> None:
        real(model, path)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            go_on(2)
    model = go_on(3)
    assert int(model.optimizer.iterations) == 3 * 2
    history = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [2, 3]
    assert not list(tmp_path.glob("writing-*"))

    whole = build()
    whole.set_weights(model.get_weights())
    train.ship(whole, example.scenes.Scenes(data / "val"), tmp_path, SIZE)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["relative_error"] <= 1e-5
    forms = report["forms"]
    assert list(forms) == ["train.keras", "deploy.keras", "model.onnx"]
    for name in ("deploy.keras", "model.onnx"):
        assert forms[name]["largest_margin"] <= 1e-5
        assert forms[name]["mean_iou"] == pytest.approx(forms["train.keras"]["mean_iou"], abs=1e-3)
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width > 900
    assert repvgg.load_runner(tmp_path / "model.onnx").metadata.class_names == example.scenes.CLASSES


def test_learning_rate_rises_and_falls(example: Any) -> None:
    shares = [example.train.share(step, 100) for step in range(100)]
    assert max(shares) == shares[10] == 1
    assert shares[:10] == sorted(shares[:10])
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert shares[-1] < 1e-3


@pytest.mark.parametrize(
    ("folder", "network", "message"),
    [
        ("none", "unet", "'.*train' has no pictures in 'images/'"),
        ("half", "unet", "There is a picture without labels: '.*a.png' does not exist"),
        ("data", "fcn", "'fcn' is none of pspnet, unet"),
    ],
)
def test_messages(folder: str, network: str, message: str, example: Any, data: Path, tmp_path: Path) -> None:
    (tmp_path / "half" / "train" / "images").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "half" / "train" / "images" / "a.png")
    source = data if folder == "data" else tmp_path / folder
    with pytest.raises((SystemExit, typer.BadParameter), match=message):
        example.train.main(source, network=network, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
