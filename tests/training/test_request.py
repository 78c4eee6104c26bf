"""What is asked of a run, before any framework is started: completed, and refused with nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from small_run import make_images

import repvgg
from repvgg.base.errors import FileError, InputError, OutputExistsError, UnknownNameError
from repvgg.training.request import checked_request, differences


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_images(tmp_path / "flowers", 3)


def begun(folder: Path, **given: Any) -> Path:
    """A run's folder as it is after the first moment."""
    request = checked_request({"output": folder, **given})
    settings = {**request.settings(), "teacher": None, "dtype": "float32"}
    request.folder.begin({"kind": "folders"}, {"settings": settings, "options": request.options(), "about": {}})
    return folder


def test_defaults(data: Path) -> None:
    request = checked_request({"data": "flowers", "model": "repvgg-a0"})
    assert request.recipe == repvgg.RECIPES["quick"]
    assert (request.model, request.seed, request.holdout, request.save_steps) == ("RepVGG-A0", 0, 0.2, 200)
    assert request.folder.path == Path("runs/RepVGG-A0-flowers")
    assert request.notes == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("epochs", "warmup", "shown"), [(2, 0.5, "0.5, to fit 2 epochs"), (1, 0.25, "0.25, to fit 1 epoch")]
)
def test_a_warm_up_that_nobody_gave_shrinks_and_says_so(data: Path, epochs: int, warmup: float, shown: str) -> None:
    request = checked_request({"data": data, "epochs": epochs})
    assert request.recipe.warmup_epochs == warmup
    assert request.notes == [f"warmup-epochs: 2 -> {shown}."]
    assert checked_request({"data": data, "epochs": 8}).notes == []
    with pytest.raises(InputError, match="`warmup_epochs` of a recipe must be at least 0 and below `epochs`"):
        checked_request({"data": data, "epochs": epochs, "warmup_epochs": 2})


def test_a_batch_that_nobody_gave_shrinks_to_the_images(data: Path) -> None:
    request = checked_request({"data": data}).fitted_to(9)
    assert request.recipe.batch_size == 9
    assert request.notes == ["batch: 32 -> 9, as many images as there are to train on."]
    assert checked_request({"data": data, "batch_size": 16}).fitted_to(9).recipe.batch_size == 16
    assert checked_request({"data": data}).fitted_to(32).notes == []


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "RepVGG-A9"}, UnknownNameError, "no variant called 'RepVGG-A9'. Did you mean RepVGG-A2"),
        ({"recipe": "quik"}, UnknownNameError, "no recipe called 'quik'. Did you mean quick"),
        ({"epoch": 3}, UnknownNameError, "no recipe value called 'epoch'. Did you mean epochs"),
        ({"size": 16}, InputError, "`size` of a recipe must be at least 32"),
        ({"recipe": "qat", "distill": 0.0}, InputError, "no image size of its own"),
        ({"weights": "missing.pth"}, FileError, "The weights file 'missing.pth' does not exist"),
        ({"data": "flower"}, FileError, "The folder 'flower' does not exist"),
        ({"holdout": 2.0, "data": "flowers/train"}, InputError, "`holdout`"),
        ({"distill": 0.5}, InputError, "and there is none. Name one"),
        ({"teacher": "t.onnx"}, InputError, "no share of the targets is to come from it"),
        ({"qat": "missing.keras"}, InputError, "There is no network 'missing.keras'"),
        ({"save_steps": 0}, InputError, "`save_steps` must be at least 1"),
        ({"output": "flowers"}, OutputExistsError, "'flowers' exists already; --force replaces its files"),
    ],
)
def test_what_is_wrong_leaves_nothing(given: dict[str, Any], error: type[Exception], message: str, data: Path) -> None:
    with pytest.raises(error, match=message):
        checked_request({"data": data, **given})
    assert [path.name for path in Path().iterdir()] == ["flowers"]


def test_pretrained_weights_that_cannot_be_had(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "cache")
    with pytest.raises(FileError, match="RepVGG-A0"):
        checked_request({"data": data, "weights": "imagenet"})
    assert not Path("runs").exists()


def test_a_run_goes_on_by_its_folder_alone(data: Path) -> None:
    folder = begun(Path("elsewhere/run"), data="flowers", epochs=2, mixup=0.2, seed=3, save_steps=5, tensorboard=False)
    for given in ({"data": folder}, {"output": folder}):
        request = checked_request(given, resume=True)
        assert request.data == data
        assert request.folder.path == folder
        assert (request.recipe.epochs, request.recipe.warmup_epochs, request.recipe.augmentation.mixup) == (2, 0.5, 0.2)
        assert (request.seed, request.save_steps, request.tensorboard) == (3, 5, False)
        assert request.notes == []
    # What is given counts more, where it changes no numbers.
    assert checked_request({"data": folder, "save_steps": 7}, resume=True).save_steps == 7


def test_a_run_of_before_there_was_a_choice_of_optimizers_goes_on(data: Path) -> None:
    folder = begun(Path("run"), data="flowers", epochs=2)
    told = json.loads((folder / "run.json").read_text())
    del told["settings"]["recipe"]["optimizer"]
    (folder / "run.json").write_text(json.dumps(told))
    assert checked_request({"data": folder}, resume=True).recipe.optimizer == "sgd"


def test_the_same_command_goes_on(data: Path) -> None:
    given = {"data": "flowers", "recipe": "quick", "epochs": 2, "mixup": 0.2}
    begun(Path("runs/RepVGG-A0-flowers"), **given)
    request = checked_request(given, resume=True)
    assert request.begun is not None
    assert request.recipe.warmup_epochs == 0.5
    assert checked_request({**given, "epochs": 4}, resume=True).recipe.epochs == 4
    with pytest.raises(OutputExistsError, match="--resume goes on with it, --force begins anew"):
        checked_request(given)


def test_other_settings_are_told_one_by_one(data: Path) -> None:
    folder = begun(Path("run"), data="flowers", epochs=40)
    with pytest.raises(InputError) as caught:
        checked_request(
            {"data": folder, "seed": 1, "mixup": 0.2, "crop_scale": (0.5, 1.0), "model": "RepVGG-A1", "epochs": 60},
            resume=True,
        )
    assert str(caught.value) == (
        "The run in 'run' was begun with other settings: seed: 0 -> 1; crop_scale: 0.3 1 -> 0.5 1; mixup: 0.0 -> 0.2; "
        "model: RepVGG-A0 -> RepVGG-A1. Leave them out to go on with it, or choose another --output. (Other --epochs "
        "are allowed.)"
    )


def test_differences_are_by_the_names_that_one_types() -> None:
    quick = repvgg.RECIPES["quick"]
    before, now = (
        {"recipe": json.loads(json.dumps(recipe.to_dict()))} for recipe in (quick, quick.changed(rand_augment=(0, 0)))
    )
    assert differences(before, now) == {"rand_augment": ("1 5", "none")}
    assert differences(before, {"recipe": quick.to_dict()}) == {}


def test_without_a_run_there_is_nothing_to_go_on_with(data: Path) -> None:
    assert checked_request({"data": data}, resume=True).notes == [
        "Nothing to go on with in 'runs/RepVGG-A0-flowers'; a new run begins."
    ]
    with pytest.raises(InputError, match="There is nothing to train on"):
        checked_request({"output": "runs/none"}, resume=True)


def test_recipes_survive_json() -> None:
    for recipe in repvgg.RECIPES.values():
        assert repvgg.Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    with pytest.raises(UnknownNameError, match="no recipe value called 'epoch'"):
        repvgg.Recipe.from_dict({"epoch": 3})
