"""What happens to training images, as plain data; `repvgg.pipeline` does it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from repvgg.base.errors import InputError, UnknownNameError


@dataclass(frozen=True)
class RandAugment:
    """Random operations on each image (Cubuk et al., arXiv 1909.13719).

    Attributes:
        num_ops: operations one after the other.
        magnitude: their strength, from 0 (none) to 10.

    Raises:
        InputError: for values out of range.
    """

    num_ops: int = 2
    magnitude: float = 9.0

    def __post_init__(self) -> None:
        _require(self.num_ops >= 1, "num_ops", self.num_ops, "at least 1")
        _require(0 <= self.magnitude <= 10, "magnitude", self.magnitude, "between 0 and 10")

    @classmethod
    def of(cls, values: Sequence[float]) -> "RandAugment | None":
        """Of operations and magnitude, as they are typed; None where there are no operations."""
        _require(len(values) == 2, "rand_augment", tuple(values), "two numbers: operations and magnitude")
        return cls(int(values[0]), values[1]) if values[0] else None


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training image, in this order.

    Attributes:
        crop_scale: the share of the image's area that the random crop covers, from and to.
        crop_ratio: its width over its height, from and to. (1.0, 1.0) for both takes the whole of a square image.
        flip: mirror left and right, half of the time.
        rand_augment: further operations; None for none.
        auto_augment: one of the 25 pairs of operations of AutoAugment's ImageNet policy (Cubuk et al., arXiv
            1805.09501), drawn for each image; not together with `rand_augment`.
        random_erasing: probability with which a rectangle becomes noise (Zhong et al., arXiv 1708.04896).
        mixup: alpha of the Beta distribution by which two images are blended (arXiv 1710.09412); 0 for never.
        cutmix: alpha of the Beta distribution by which a rectangle comes from another image (arXiv 1905.04899); 0 for
            never. With both, each pair of images gets one of them, by the toss of a coin.

    Raises:
        InputError: for values out of range.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True
    rand_augment: RandAugment | None = None
    auto_augment: bool = False
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name in ("crop_scale", "crop_ratio"):
            values = tuple(float(value) for value in getattr(self, name))
            _require(len(values) == 2, name, values, "two numbers")
            object.__setattr__(self, name, values)
        (least, most), (narrow, wide) = self.crop_scale, self.crop_ratio
        _require(0 < least <= most <= 1, "crop_scale", self.crop_scale, "two shares of the area, 0 < from <= to <= 1")
        _require(0 < narrow <= wide < math.inf, "crop_ratio", self.crop_ratio, "two ratios, 0 < from <= to")
        if self.auto_augment and self.rand_augment is not None:
            raise InputError("`auto_augment` and `rand_augment` of an augmentation exclude each other. Leave one off.")
        _require(0 <= self.random_erasing <= 1, "random_erasing", self.random_erasing, "a probability")
        _require(0 <= self.mixup < math.inf, "mixup", self.mixup, "at least 0")
        _require(0 <= self.cutmix < math.inf, "cutmix", self.cutmix, "at least 0")

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Augmentation":
        """Reads what `to_dict` wrote; what is missing takes its default.

        Raises:
            UnknownNameError: for an unknown name.
            InputError: for values out of range.
        """
        _check_names(cls, values)
        given = dict(values)
        if given.get("rand_augment") is not None:
            _check_names(RandAugment, given["rand_augment"])
            given["rand_augment"] = RandAugment(**given["rand_augment"])
        return cls(**given)


def _check_names(kind: type[Augmentation] | type[RandAugment], values: object) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"Expected the values of {kind.__name__} by name. Received: {values!r}.")
    known = [entry.name for entry in fields(kind)]
    for name in values:
        if name not in known:
            raise UnknownNameError("value of an augmentation", name, known)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"`{name}` of an augmentation must be {expected}. Received: {value}.")
