"""What an option of `repvgg train` is if it is not given: each recipe's own value, in its help."""

import inspect
from collections.abc import Callable
from typing import Any, get_args

from typer.models import OptionInfo

from repvgg.data.augmentation import RandAugment
from repvgg.training.recipe import RECIPES, Recipe

CHOSEN = "quick"
"""The recipe that is taken if none is named, told first."""

VALUES = {"batch": "batch_size"}
"""Options that are called otherwise than the recipe's values."""

WITHOUT = {"size": "the network's", "test_size": "as in training"}
"""What it means that a recipe has no value, where that is not `none`."""


def tell_defaults(command: Callable[..., None]) -> None:
    """Adds the values of all recipes to the help of the options that replace them."""
    for name, parameter in inspect.signature(command).parameters.items():
        told = next((one for one in get_args(parameter.annotation) if isinstance(one, OptionInfo)), None)
        if told is None or parameter.default is not None:
            continue
        value = VALUES.get(name, name)
        if hasattr(RECIPES[CHOSEN], value) or hasattr(RECIPES[CHOSEN].augmentation, value):
            told.help = f"{told.help} {_defaults(value)}"


def _defaults(name: str) -> str:
    values: dict[str, list[str]] = {}
    for recipe in (CHOSEN, *(other for other in RECIPES if other != CHOSEN)):
        values.setdefault(_text(name, _value(RECIPES[recipe], name)), []).append(recipe)
    if len(values) == 1:
        return f"(default: {next(iter(values))})"
    told = [f"{value} in {', '.join(recipes)}" for value, recipes in values.items()]
    return f"({'; '.join(told)})"


def _value(recipe: Recipe, name: str) -> Any:
    return getattr(recipe, name) if hasattr(recipe, name) else getattr(recipe.augmentation, name)


def _text(name: str, value: Any) -> str:
    if value is None:
        return WITHOUT.get(name, "none")
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, RandAugment):
        return f"{value.num_ops} {value.magnitude:g}"
    if isinstance(value, tuple):
        return " ".join(f"{one:.3g}" for one in value)
    return f"{value:g}"
