"""Runs with scales: given, or searched first; and what is wrong with some."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from small_run import make_images, small_settings

import repvgg
from helpers import assert_same_values, to_numpy, values_of
from own_rows import own_rows_forgotten
from repvgg.base.errors import CheckpointError, FileError, InputError, InterruptedTrainingError
from repvgg.checkpoints.scales import Scales, load_scales, save_scales, scales_of
from repvgg.core.architecture import Architecture
from repvgg.models.variants import VARIANTS, Published, Variant
from repvgg.training.callbacks import StateKeeper
from repvgg.training.request import checked_request
from repvgg.training.searching import set_initial_scales

TINY = Architecture((1, 2, 1, 1), (0.125, 0.125, 0.0625, 0.03125), block="RepOptVGGBlock")
SEARCH = replace(TINY, block="LinearAdditionBlock")
EPOCHS, SEARCHED = 1, 1


@pytest.fixture(autouse=True, scope="module")
def tiny() -> Iterator[None]:
    """A network of 6 narrow blocks, and the one its scales are searched with."""
    with own_rows_forgotten():
        VARIANTS["RepOpt-tiny"] = Variant("RepOpt-tiny", TINY, Published("a test"))
        VARIANTS["RepOpt-tiny-search"] = Variant("RepOpt-tiny-search", SEARCH, Published("a test"))
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"), 6)


def settings(**changes: Any) -> dict[str, Any]:
    values = small_settings(**changes)
    return {**values, "recipe": values["recipe"].changed(epochs=EPOCHS, learning_rate=0.8, ema=0.5, nesterov=True)}


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that searched, then trained, and was not interrupted."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    repvgg.train(data, "RepOpt-tiny", output=output, **settings(search_epochs=SEARCHED))
    return output


def last(output: Path) -> list[np.ndarray]:
    return values_of(repvgg.load_model(output / "last.keras"))


def stopped_at(step: int, network: str, patch: pytest.MonkeyPatch) -> None:
    """Lets a run stop as Ctrl-C would, after a step of one of its two networks."""
    original: Callable[..., None] = StateKeeper.on_train_batch_end

    def end(self: Any, batch: int, logs: Any = None) -> None:
        original(self, batch, logs)
        if (self.progress.step, self.folder.parent.name == "search") == (step, network == "search"):
            self.save()
            raise InterruptedTrainingError(step, 2)

    patch.setattr(StateKeeper, "on_train_batch_end", end)


def test_what_a_search_leaves(data: Path, finished: Path) -> None:
    assert (finished / "search" / "last.keras").exists()
    scales = load_scales(finished)
    searched = scales_of(repvgg.load_model(finished / "search" / "last.keras"))
    assert scales.blocks.keys() == searched.blocks.keys() == {spec.name for spec in TINY.blocks(3)}
    for block, factors in searched.blocks.items():
        for name, values in factors.items():
            np.testing.assert_array_equal(values, scales.blocks[block][name])
    # They were trained, from other values than 1 in later blocks of a stage.
    assert 0.001 < np.abs(searched.blocks["stage2_block1"]["scale_1x1"] - 2**0.5).max() < 0.7
    told = json.loads((finished / "run.json").read_text())["settings"]
    assert told["search_epochs"] == SEARCHED
    deployed = repvgg.load_model(finished / "deploy.keras")
    assert repvgg.get_metadata(deployed).optimizer == {
        "name": "RepOptimizer",
        "update_rule": "sgd",
        "scales": f"RepOpt-tiny-search trained on {data.name}, 1 epoch, seed 0",
        "scales_digest": scales.digest(),
    }


@pytest.mark.full
def test_page_and_card_say_how_it_was_trained(data: Path, finished: Path, tmp_path: Path) -> None:
    repvgg.report(finished, tmp_path / "page.html", model_card=tmp_path / "card.md", speed=False)
    for text in ((tmp_path / "page.html").read_text(), (tmp_path / "card.md").read_text()):
        assert "RepOptimizer (sgd), scales: RepOpt-tiny-search trained on" in text
        assert "plain stack of convolutions in training as well" in text
        assert "several branches" not in text


@pytest.mark.full
@pytest.mark.parametrize("network", ["search", "training"])
def test_an_interrupted_one_ends_bit_for_bit_the_same(
    network: str, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stopped_at(1, network, patch)
        with pytest.raises(InterruptedTrainingError):
            repvgg.train(data, "RepOpt-tiny", output=tmp_path / "run", **settings(search_epochs=SEARCHED))
    assert (tmp_path / "run" / "scales.safetensors").exists() == (network == "training")
    repvgg.train(output=tmp_path / "run", resume=True)
    assert_same_values(last(finished), last(tmp_path / "run"))
    assert load_scales(tmp_path / "run").digest() == load_scales(finished).digest()


@pytest.mark.full
def test_given_scales_do_the_same_and_are_kept(data: Path, finished: Path, tmp_path: Path) -> None:
    """A file that goes away while the run is at rest; another one is another run."""
    file = shutil.copy(finished / "scales.safetensors", tmp_path / "mine.safetensors")
    repvgg.train(data, "RepOpt-tiny", output=tmp_path / "run", scales=file, **settings())
    assert_same_values(last(finished), last(tmp_path / "run"))
    (tmp_path / "mine.safetensors").unlink()
    other = scales_of(repvgg.create_model("RepOpt-tiny-search"))
    save_scales(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"begun with other settings: scales: \w{8} -> \w{8}"):
        repvgg.train(output=tmp_path / "run", resume=True, scales=tmp_path / "other.safetensors")
    repvgg.train(output=tmp_path / "run", resume=True)
    assert_same_values(last(finished), last(tmp_path / "run"))


def test_a_search_from_python(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def train(*arguments: Any, **options: Any) -> Any:
        asked.update(arguments=arguments, options=options)
        folder = tmp_path / "search"
        folder.mkdir()
        save_scales(scales_of(repvgg.create_model("RepOpt-tiny-search")), folder / "scales.safetensors")
        return type("Result", (), {"folder": folder})

    monkeypatch.setattr("repvgg.training.hyper_search.train", train)
    scales = repvgg.search_scales(data, "repopt-tiny", epochs=3)
    assert asked == {"arguments": (data, "RepOpt-tiny-search"), "options": {"epochs": 3}}
    assert scales.blocks["stage0"]["scale_conv"].shape == (8,)
    with pytest.raises(InputError, match=r"Scales are searched for RepOpt-VGG-A0, .*and not for RepVGG-A0"):
        repvgg.search_scales(data, "RepVGG-A0")


def test_initial_scales() -> None:
    """The authors': sqrt(2 / l) for the l-th block of a stage from 0, and 1 where that is none."""
    network = repvgg.RepVGG([1, 3, 1, 1], [0.125] * 4, num_classes=3, block="LinearAdditionBlock")
    set_initial_scales(network)
    for block, wanted in {"stage0": 1, "stage2_block0": 1, "stage2_block1": 2**0.5, "stage2_block2": 1}.items():
        layer = network.get_layer(block)
        for branch in (layer.conv3x3, layer.conv1x1):
            np.testing.assert_allclose(to_numpy(branch.scale1.scale), wanted, rtol=1e-6)
        if layer.identity is not None:
            np.testing.assert_array_equal(to_numpy(layer.identity.scale), 1)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, InputError, r"RepOpt-tiny is plain from the beginning.*--search-epochs 20.*--scales FILE"),
        (
            {"scales": "s.safetensors", "search_epochs": 3},
            InputError,
            "both say what the gradients are multiplied with",
        ),
        ({"search_epochs": 0}, InputError, "`search_epochs` must be at least 1"),
        ({"model": "RepVGG-A0", "search_epochs": 3}, InputError, "RepVGG-A0 is trained by an ordinary optimizer"),
        (
            {"model": "RepVGG-A0", "scales": "s.safetensors"},
            InputError,
            "RepVGG-A0 is trained by an ordinary optimizer",
        ),
        ({"scales": "missing.pth"}, FileError, "The file of scales 'missing.pth' does not exist"),
        ({"scales": "missing.keras"}, FileError, "There is no file of scales 'missing.keras'"),
        ({"scales": "plain.safetensors"}, CheckpointError, "There are no scales in 'plain.safetensors'"),
        (
            {"model": "RepOpt-VGG-A0", "scales": "s.safetensors"},
            InputError,
            r"\(mine\) are not those of 'RepOpt-VGG-A0'",
        ),
        ({"search_epochs": 2, "optimizer": "adamw"}, InputError, "0.4, is for sgd. Give one for adamw"),
        ({"search_epochs": 2, "optimizer": "lion", "learning_rate": 0.1}, InputError, "must be sgd or adamw"),
    ],
)
def test_what_is_wrong_is_said_before_anything_begins(
    given: dict[str, Any], error: type[Exception], message: str, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    network = repvgg.create_model("RepOpt-tiny-search")
    save_scales(Scales(scales_of(network).blocks, "mine"), "s.safetensors")
    repvgg.save_checkpoint(repvgg.create_model("RepOpt-tiny"), "plain.safetensors")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        checked_request({"data": data, "model": "RepOpt-tiny", **given})
    assert sorted(tmp_path.iterdir()) == before
    if not given:
        # Weights that are there already may be trained on by an ordinary optimizer.
        checked_request({"data": data, "model": "RepOpt-tiny", "weights": "plain.safetensors"})


def test_a_network_of_ones_own_is_checked_as_well(data: Path, tmp_path: Path) -> None:
    file = save_scales(scales_of(repvgg.create_model("RepOpt-tiny-search")), tmp_path / "s.safetensors")
    keras.utils.set_random_seed(0)
    model = repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=3, input_shape=(32, 32, 3), block="RepOptVGGBlock")
    with pytest.raises(InputError, match="are not those of 'repvgg'"):
        repvgg.train(data, model, output=tmp_path / "run", scales=file, **settings())
    assert not (tmp_path / "run").exists()
