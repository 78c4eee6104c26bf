"""Learning from a network's answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_run import BATCH, make_images, small_model, small_settings

import repvgg
from repvgg.base.errors import InputError
from repvgg.pipeline import FolderSource, training_batches
from repvgg.runners.classifier import softmax
from repvgg.training.inputs import find_inputs
from repvgg.training.recipe import Recipe
from repvgg.training.request import checked_request
from repvgg.training.teacher import open_teacher, taught

CLASSES = ("blue", "green", "red")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


def teacher(**metadata: Any) -> Any:
    model = small_model()
    # Answers that are sure of something, but not of the truth.
    kernel, bias = model.get_layer("classifier").get_weights()
    model.get_layer("classifier").set_weights([20 * kernel, bias])
    repvgg.set_metadata(model, class_names=CLASSES, **metadata)
    return model


def batches(data: Path) -> Any:
    source = find_inputs(checked_request({"data": data}), lambda _count: lambda _done: None).training
    assert isinstance(source, FolderSource)
    recipe: Recipe = small_settings()["recipe"]
    crops = repvgg.Preprocessing(crop=32, resize=32)
    return training_batches(source, crops, recipe.augmentation, batch_size=BATCH, seed=0, first_step=0, last_step=3)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_targets_are_the_teachers_probabilities(data: Path, share: float) -> None:
    runner = open_teacher(teacher())
    assert runner is not None
    plain = list(batches(data).as_numpy_iterator())
    soft = taught(batches(data), runner, share)
    assert int(soft.cardinality()) == 3
    for (images, labels), (same_images, targets) in zip(plain, soft.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(images, same_images)
        expected = share * softmax(runner(images)) + (1 - share) * labels
        np.testing.assert_allclose(targets, expected, atol=1e-6)
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-6)


def test_a_network_comes_to_answer_like_its_teacher(data: Path, tmp_path: Path) -> None:
    settings = small_settings()
    # Whatever the labels say, the teacher calls everything red.
    model = teacher()
    model.get_layer("classifier").bias.assign([0.0, 0.0, 100.0])
    settings["recipe"] = settings["recipe"].changed(distill=1.0)
    result = repvgg.train(data, small_model(), teacher=model, output=tmp_path / "run", **settings)
    assert result.history[-1]["loss"] < 0.5 * result.history[0]["loss"]
    found = repvgg.evaluate(result.deployed, data / "val")
    assert found.top1 == pytest.approx(1 / 3)


def test_it_is_told_who_does_not_fit(data: Path, tmp_path: Path) -> None:
    settings = small_settings(output=tmp_path / "run")
    taught_recipe = settings["recipe"].changed(distill=0.5)
    with pytest.raises(InputError, match="no share of the targets is to come from it"):
        repvgg.train(data, "RepVGG-A0", teacher=teacher(), **settings)
    settings["recipe"] = taught_recipe
    with pytest.raises(InputError, match="come from a teacher, and there is none"):
        repvgg.train(data, "RepVGG-A0", **settings)
    other = teacher()
    repvgg.set_metadata(other, class_names=("blue", "green", "yellow"))
    with pytest.raises(InputError, match="tells other classes apart"):
        repvgg.train(data, "RepVGG-A0", teacher=other, **{**settings, "force": True})
    grey = teacher(preprocessing=repvgg.Preprocessing(crop=32, resize=32, mean=(0.5,) * 3, std=(0.5,) * 3))
    with pytest.raises(InputError, match="takes colours with mean"):
        repvgg.train(data, "RepVGG-A0", teacher=grey, **{**settings, "force": True})
    settings["recipe"] = taught_recipe.changed(size=64)
    with pytest.raises(InputError, match="takes images of 32 x 32 px, and this run trains at 64 px"):
        repvgg.train(data, "RepVGG-A0", teacher=teacher(), **{**settings, "force": True})
