"""Recipes as FACTS of the paper state them, and what they refuse."""

import pytest

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.data.augmentation import RandAugment
from repvgg.training.recipe import RECIPES, Recipe, get_recipe


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("paper", {"epochs": 120, "batch_size": 256, "learning_rate": 0.1, "weight_decay": 1e-4, "warmup_epochs": 0}),
        ("paper-heavy", {"epochs": 200, "warmup_epochs": 5, "label_smoothing": 0.1, "weight_decay": 1e-4}),
        ("plus", {"epochs": 300, "warmup_epochs": 5, "label_smoothing": 0.1, "weight_decay": 4e-5, "test_size": 320}),
    ],
)
def test_published_recipes(name: str, expected: dict[str, float]) -> None:
    recipe = get_recipe(name)
    assert {key: getattr(recipe, key) for key in expected} == expected
    assert recipe.momentum == 0.9
    assert not recipe.nesterov


def test_augmentation_of_published_recipes() -> None:
    plain, heavy, plus = (get_recipe(name).augmentation for name in ("paper", "paper-heavy", "plus"))
    assert (plain.crop_scale, plain.flip, plain.mixup, plain.rand_augment) == ((0.08, 1.0), True, 0, None)
    assert heavy.auto_augment
    assert heavy.mixup > 0
    assert plus.rand_augment is not None
    assert plus.mixup == 0.2


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_says_where_it_comes_from(name: str) -> None:
    assert len(RECIPES[name].about) > 40


def test_rate_scales_with_the_batch() -> None:
    assert Recipe(epochs=1, batch_size=64).peak_rate == pytest.approx(0.025)


def test_changes_reach_the_augmentation_too() -> None:
    recipe = get_recipe("quick").changed(epochs=3, mixup=0.4, momentum=None)
    assert (recipe.epochs, recipe.augmentation.mixup, recipe.momentum) == (3, 0.4, 0.9)
    assert recipe.changed(rand_augment=(0, 0)).augmentation.rand_augment is None
    assert recipe.changed(rand_augment=(3, 7)).augmentation.rand_augment == RandAugment(3, 7)


def test_refusals() -> None:
    with pytest.raises(UnknownNameError, match=r"no recipe called 'papper'\. Did you mean paper"):
        get_recipe("papper")
    with pytest.raises(UnknownNameError, match=r"no recipe value called 'epoch'\. Did you mean epochs"):
        get_recipe("quick").changed(epoch=3)
    with pytest.raises(InputError, match=r"`warmup_epochs` of a recipe must be at least 0 and below `epochs`"):
        get_recipe("quick").changed(epochs=2, warmup_epochs=2)
    with pytest.raises(InputError, match=r"`size` of a recipe must be at least 32"):
        get_recipe("quick").changed(size=16)
