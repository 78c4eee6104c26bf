"""Augmentation as data: what it refuses, and its way through JSON."""

import json
from typing import Any

import pytest

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.data.augmentation import Augmentation, RandAugment


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Augmentation, {"crop_scale": (0.0, 1.0)}),
        (Augmentation, {"crop_scale": (0.5, 0.4)}),
        (Augmentation, {"crop_scale": (0.5, 1.1)}),
        (Augmentation, {"crop_scale": (0.5, 0.6, 0.7)}),
        (Augmentation, {"crop_ratio": (0.0, 1.0)}),
        (Augmentation, {"crop_ratio": (2.0, 1.0)}),
        (Augmentation, {"crop_ratio": (1.0, float("inf"))}),
        (Augmentation, {"random_erasing": 1.5}),
        (Augmentation, {"mixup": -0.1}),
        (Augmentation, {"cutmix": float("nan")}),
        (RandAugment, {"num_ops": 0}),
        (RandAugment, {"magnitude": 11}),
    ],
)
def test_values_out_of_range(kind: Any, values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"`{next(iter(values))}` of an augmentation must be .* Received: "):
        kind(**values)


def test_json_and_back() -> None:
    for augmentation in (
        Augmentation(),
        Augmentation((0.3, 1), (1, 1), False, RandAugment(3, 7.5), random_erasing=0.25, mixup=0.2, cutmix=1.0),
        Augmentation(auto_augment=True),
    ):
        assert Augmentation.from_dict(json.loads(json.dumps(augmentation.to_dict()))) == augmentation
    assert Augmentation.from_dict({}) == Augmentation()


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownNameError, match=r"'mixupp'. Did you mean mixup\b"):
        Augmentation.from_dict({"mixupp": 0.1})
    with pytest.raises(UnknownNameError, match=r"'ops'"):
        Augmentation.from_dict({"rand_augment": {"ops": 2}})
    with pytest.raises(InputError, match="Received: 9"):
        Augmentation.from_dict({"rand_augment": 9})


def test_two_kinds_of_operations_exclude_each_other() -> None:
    with pytest.raises(InputError, match=r"`auto_augment` and `rand_augment` .* exclude each other"):
        Augmentation(auto_augment=True, rand_augment=RandAugment())
