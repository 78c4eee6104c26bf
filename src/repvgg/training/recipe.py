"""How a network is trained, as plain data: the table of recipes, each with its source and what was seen of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.blocks.csla import UPDATE_RULES
from repvgg.data.augmentation import Augmentation, RandAugment

BASE_BATCH = 256
"""The batch size that learning rates are stated for; they scale with batch_size / 256 (Goyal et al., 1706.02677)."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained, except the network, the images and the seed.

    Attributes:
        epochs: passes over the training images.
        batch_size: images of one step, over all processes and devices.
        learning_rate: its peak at batch 256; the peak used is this times batch_size / 256.
        warmup_epochs: epochs in which the rate rises linearly from 0, before a cosine takes it to 0.
        optimizer: "sgd" or "adamw".
        momentum: of SGD, and AdamW's beta 1 (its beta 2 is 0.999).
        nesterov: of SGD alone.
        weight_decay: coupled with the gradient in SGD, as PyTorch does it, and decoupled in AdamW. Kernels and the
            scales of identity branches are decayed; biases and other normalization parameters are not.
        custom_l2: decay the folded kernel of each block instead of its branches' kernels
            (`RepVGGBlock.get_custom_L2`), in SGD.
        label_smoothing: share of a target that is spread over all classes.
        distill: share of the targets that a teacher's probabilities are; the rest is labels. 0 for no teacher.
        auxiliary_weight: factor on the losses of RepVGGplus's auxiliary classifiers.
        ema: momentum of an exponential moving average of the trainable weights, by which the network is then
            evaluated and saved; None for none.
        accumulate: steps whose gradients are averaged before the weights move.
        clip_norm: limit of the norm of all gradients together; None for none.
        augmentation: what happens to training images.
        size: pixels a side of the training images; None for what the network carries.
        test_size: pixels a side in evaluation where that differs; None where it does not.
        about: where the recipe comes from, and what was seen of it.

    Raises:
        InputError: for values that make no training.
    """

    epochs: int
    batch_size: int = BASE_BATCH
    learning_rate: float = 0.1
    warmup_epochs: float = 0
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    custom_l2: bool = False
    label_smoothing: float = 0
    distill: float = 0
    auxiliary_weight: float = 0.1
    ema: float | None = None
    accumulate: int = 1
    clip_norm: float | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)
    size: int | None = 224
    test_size: int | None = None
    about: str = ""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(self.batch_size >= 1, "batch_size", self.batch_size, "at least 1")
        _require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(
            0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, "at least 0 and below `epochs`"
        )
        _require(self.optimizer in UPDATE_RULES, "optimizer", self.optimizer, " or ".join(UPDATE_RULES))
        _require(
            not (self.custom_l2 and self.optimizer != "sgd"),
            "custom_l2",
            self.custom_l2,
            "off for adamw, whose decay is not part of the gradient",
        )
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        _require(0 <= self.distill <= 1, "distill", self.distill, "from 0 to 1")
        _require(self.auxiliary_weight >= 0, "auxiliary_weight", self.auxiliary_weight, "at least 0")
        _require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "between 0 and 1, or None")
        _require(self.accumulate >= 1, "accumulate", self.accumulate, "at least 1")
        for name in ("size", "test_size"):
            value = getattr(self, name)
            _require(value is None or value >= 32, name, value, "at least 32: the network halves an image five times")
        _require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", self.clip_norm, "above 0, or None")

    @property
    def peak_rate(self) -> float:
        """The learning rate after warm-up."""
        return self.learning_rate * self.batch_size / BASE_BATCH

    def changed(self, **changes: Any) -> "Recipe":
        """A copy with some values replaced; those of the augmentation by their own names.

        Values that are None are left as they are. `rand_augment` may be (operations, magnitude), (0, 0) for none. A
        warm-up that is not given is at most a quarter of epochs that are.

        Raises:
            InputError: if there is no such value.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        own, pictures = ({entry.name for entry in fields(kind)} for kind in (Recipe, Augmentation))
        for name in given:
            if name not in own | pictures:
                raise UnknownNameError("recipe value", name, sorted(own | pictures))
        if isinstance(given.get("rand_augment"), tuple | list):
            given["rand_augment"] = RandAugment.of(given["rand_augment"])
        if "epochs" in given and "warmup_epochs" not in given:
            given["warmup_epochs"] = min(self.warmup_epochs, max(given["epochs"], 1) / 4)
        augmentation = replace(self.augmentation, **{key: value for key, value in given.items() if key in pictures})
        return replace(
            self, **{"augmentation": augmentation, **{key: value for key, value in given.items() if key in own}}
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Reads what `to_dict` wrote; what is missing takes its default.

        Raises:
            UnknownNameError: for an unknown name.
            InputError: for values that make no training.
        """
        known = [entry.name for entry in fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownNameError("recipe value", name, known)
        return cls(**{**values, "augmentation": Augmentation.from_dict(values.get("augmentation", {}))})


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise InputError(f"`{name}` of a recipe must be {expected}. Received: {value}.")


PAPER = "Ding et al., arXiv 2101.03697, section 4.1"
REPOSITORY = "https://github.com/DingXiaoH/RepVGG"
REPOPT = "https://github.com/DingXiaoH/RepOptimizers"

RECIPES: dict[str, Recipe] = {
    "paper": Recipe(
        epochs=120,
        about=f"The light and middleweight networks on ImageNet ({PAPER}): A0 72.41 %, B1g4 77.58 % top-1; no warm-up, "
        "no smoothing. Not run by this project: ImageNet needs days on 8 GPUs.",
    ),
    "paper-heavy": Recipe(
        epochs=200,
        warmup_epochs=5,
        label_smoothing=0.1,
        augmentation=Augmentation(auto_augment=True, mixup=0.2),
        about=f"The heavyweight networks on ImageNet ({PAPER}): B2g4 79.38 %, B3 80.52 % top-1. Not run by this "
        "project: ImageNet needs days on 8 GPUs.",
    ),
    "plus": Recipe(
        epochs=300,
        weight_decay=4e-5,
        warmup_epochs=5,
        label_smoothing=0.1,
        augmentation=Augmentation(rand_augment=RandAugment(), mixup=0.2),
        size=256,
        test_size=320,
        about=f"RepVGGplus-L2pse on ImageNet ({REPOSITORY}): 84.06 % top-1; trained at 256 px, tested at 320 px. Not "
        "run by this project: ImageNet needs days on 8 GPUs.",
    ),
    "finetune": Recipe(
        epochs=20,
        batch_size=64,
        learning_rate=0.04,
        warmup_epochs=1,
        label_smoothing=0.1,
        augmentation=Augmentation(crop_scale=(0.3, 1.0)),
        about="From weights that exist (--weights) to other classes: a tenth of the rate of a training from scratch.",
    ),
    "qat": Recipe(
        epochs=3,
        batch_size=32,
        learning_rate=0.0004,
        warmup_epochs=0.5,
        weight_decay=0,
        distill=1,
        augmentation=Augmentation(crop_scale=(0.6, 1.0)),
        size=None,
        about="Quantization-aware training of a network that is trained already (--qat), whose answers are to stay: "
        "a thousandth of the rate, and no labels.",
    ),
    "repopt": Recipe(
        epochs=120,
        warmup_epochs=5,
        nesterov=True,
        weight_decay=4e-5,
        label_smoothing=0.1,
        augmentation=Augmentation(rand_augment=RandAugment()),
        about=f"RepOpt-VGG on ImageNet with scales of the authors or of a search ({REPOPT}): B1 78.62 %, L2 80.47 % "
        "top-1. Not run by this project: ImageNet needs days on 8 GPUs.",
    ),
    "repopt-search": Recipe(
        epochs=240,
        warmup_epochs=10,
        nesterov=True,
        weight_decay=4e-5,
        label_smoothing=0.1,
        clip_norm=5,
        size=32,
        about=f"The search of RepOpt-VGG's scales on CIFAR-100 ({REPOPT}). Not run by this project.",
    ),
    "quick": Recipe(
        epochs=40,
        batch_size=32,
        learning_rate=0.4,
        warmup_epochs=2,
        nesterov=True,
        weight_decay=5e-4,
        label_smoothing=0.1,
        size=128,
        augmentation=Augmentation(crop_scale=(0.3, 1.0), rand_augment=RandAugment(num_ops=1, magnitude=5)),
        about="From scratch on some thousand images of one's own.",
    ),
}


def get_recipe(name: str) -> Recipe:
    """The recipe called `name`.

    Raises:
        UnknownNameError: if there is none; the message names the nearest ones.
    """
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]
