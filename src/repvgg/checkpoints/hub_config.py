"""`config.json` of a repository on the hub, as timm has it, with a section of our own for what it lacks."""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from repvgg.base.errors import CheckpointError
from repvgg.base.metadata import Form, Preprocessing
from repvgg.checkpoints.errors import shown
from repvgg.core.architecture import PUBLISHED, Adaptation
from repvgg.models.variants import VARIANTS

FILE_NAME: Final = "config.json"
MOST_BYTES: Final = 8 * 2**20
"""ImageNet-21k with a description of every class takes 1.5 MB."""

LONGEST_SIDE: Final = 4096
"""Of images that anybody prepares for a classifier; what is larger would only fill the memory."""

UNNAMED: Final = "repvgg"
"""The architecture of a network that is none of the named ones."""

TIMM_NAMES: Final[Mapping[str, str]] = {
    name: name.replace("-", "_").lower()
    for name in (
        *(f"RepVGG-{size}" for size in ("A0", "A1", "A2", "B0", "B1", "B1g4", "B2", "B2g4", "B3", "B3g4", "D2se")),
        *(f"MobileOne-S{size}" for size in range(5)),
    )
}
"""What timm calls the networks that it has."""

_VARIANTS = {theirs: ours for ours, theirs in TIMM_NAMES.items()}

_HARMLESS = ("in_chans", "num_classes", "img_size", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last")
"""Arguments of timm's networks that change nothing in inference, or that the weights tell."""

_OWN = "repvgg"

_logger = logging.getLogger("repvgg")


@dataclass(frozen=True)
class HubConfig:
    """What a repository says of its weights.

    Attributes:
        architecture: timm's name of the network; the variant's where timm does not have it; `UNNAMED` for others.
        num_classes: outputs of the classifier.
        class_names: in the order of the logits.
        preprocessing: from an image file to the input.
        adaptation: strides and dilation.
        variant: the network that was published, where the weights are those of another form of it.
        form: which form was published, where that is not the form of the weights.
    """

    architecture: str
    num_classes: int
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    adaptation: Adaptation = PUBLISHED
    variant: str | None = None
    form: Form | None = None

    @property
    def weights_of(self) -> str | None:
        """The variant that the weights are those of, as far as the file tells."""
        return _VARIANTS.get(self.architecture, self.architecture if self.architecture in VARIANTS else None)

    def to_json(self, *, num_features: int, first_conv: Sequence[str], classifier: str) -> str:
        """The text of the file.

        Args:
            num_features: channels that the classifier reads.
            first_conv, classifier: the modules that read the image and give the logits, by the names of the weights.
        """
        preprocessing = self.preprocessing or Preprocessing()
        size = preprocessing.crop
        arguments: dict[str, Any] = {}
        if preprocessing.channels != 3:
            arguments["in_chans"] = preprocessing.channels
        if self.adaptation.output_stride != PUBLISHED.output_stride:
            arguments["output_stride"] = self.adaptation.output_stride
        own: dict[str, Any] = {"variant": self.variant, "form": self.form}
        for name in ("stem_strides", "output_stride", "dilate_first"):
            value = getattr(self.adaptation, name)
            own[name] = value if value != getattr(PUBLISHED, name) else None
        own = {name: value for name, value in own.items() if value is not None}
        total_stride = min(16 * self.adaptation.stem_strides, self.adaptation.output_stride)
        values: dict[str, Any] = {
            "architecture": self.architecture,
            "num_classes": self.num_classes,
            "num_features": num_features,
            "global_pool": "avg",
            **({"label_names": list(self.class_names)} if self.class_names is not None else {}),
            **({"model_args": arguments} if arguments else {}),
            "pretrained_cfg": {
                "custom_load": False,
                "input_size": [preprocessing.channels, size, size],
                "fixed_input_size": False,
                "interpolation": "bilinear",
                "crop_pct": _crop_share(preprocessing),
                "crop_mode": "center",
                "mean": list(preprocessing.mean),
                "std": list(preprocessing.std),
                "num_classes": self.num_classes,
                "pool_size": [math.ceil(size / total_stride)] * 2,
                "first_conv": list(first_conv),
                "classifier": classifier,
            },
            **({_OWN: own} if own else {}),
        }
        return json.dumps(values, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> "HubConfig":
        """Reads a file of ours or of timm's.

        Raises:
            CheckpointError: if it is not such a file, or tells of a network that this package does not have.
        """
        if path.stat().st_size > MOST_BYTES:
            raise CheckpointError(f"'{path}' is larger than {MOST_BYTES} bytes, and a {FILE_NAME} is far smaller.")
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise TypeError("it is not a JSON object")
            return cls._of(values)
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError, AttributeError) as error:
            # Ours are ValueErrors too.
            raise CheckpointError(
                f"'{path.name}' is not a description of a network as timm writes it: {shown(str(error))}. The "
                "repository has to hold an image classifier, pushed by repvgg or timm."
            ) from error

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> "HubConfig":
        # Once the file was a single table, as timm still reads it.
        told: Mapping[str, Any] = values.get("pretrained_cfg", values)
        own: Mapping[str, Any] = values.get(_OWN) or {}
        architecture = values["architecture"]
        if architecture not in (*_VARIANTS, *VARIANTS, UNNAMED):
            raise CheckpointError(
                f"The repository holds a network called '{shown(architecture)}', and these are loaded: "
                f"{', '.join(_VARIANTS)}, and what repvgg pushed."
            )
        num_classes = int(values.get("num_classes", told.get("num_classes", 0)))
        if num_classes < 1:
            raise CheckpointError("The repository's network has no classifier, and one was expected.")
        form, variant = own.get("form"), own.get("variant")
        if form not in (None, *get_args(Form)) or variant not in (None, *VARIANTS):
            raise CheckpointError(
                f"The repository was pushed by a newer version of repvgg: it holds '{shown(variant)}' in "
                f"{shown(form)} form. Upgrade it."
            )
        names = values.get("label_names", told.get("label_names", values.get("labels")))
        return cls(
            architecture,
            num_classes,
            _class_names(names, num_classes, told),
            _preprocessing(told),
            _adaptation(values.get("model_args") or {}, own),
            variant,
            form,
        )


def _crop_share(preprocessing: Preprocessing) -> float:
    """Which share of the resized side is cut out, such that timm, which rounds down, gets to the same size."""
    share = preprocessing.crop / preprocessing.resize
    while math.floor(preprocessing.crop / share) < preprocessing.resize:
        share = math.nextafter(share, 0)
    return share


def _preprocessing(told: Mapping[str, Any]) -> Preprocessing | None:
    """Ours from timm's; None, and a warning, where images are not cut out square."""
    channels, height, width = (int(side) for side in told.get("input_size", (3, 224, 224)))
    if height != width:
        _logger.warning(
            "The repository prepares images of %d x %d pixels, and only square ones are here.", height, width
        )
        return None
    way = told.get("interpolation", "bilinear"), told.get("crop_mode") or "center"
    if way != ("bilinear", "center"):
        _logger.warning(
            "The repository prepares images otherwise (%s, %s) than is done here (bilinear, center): accuracy may be "
            "a little lower.",
            *(shown(one) for one in way),
        )
    resize = max(height, math.floor(height / float(told.get("crop_pct") or 0.875)))
    if resize > LONGEST_SIDE:
        raise CheckpointError(
            f"The repository prepares images of {resize:.6g} pixels, and {LONGEST_SIDE} is the limit."
        )
    mean, std = (_for_channels(told[name], channels) for name in ("mean", "std"))
    return Preprocessing(height, resize, mean, std)


def _for_channels(values: Any, channels: int) -> tuple[float, ...]:
    listed = [float(value) for value in (values if isinstance(values, list) else [values])]
    if not all(map(math.isfinite, listed)):
        raise ValueError("mean and deviation are not numbers")
    return tuple(listed * channels if len(listed) == 1 else listed)


def _class_names(given: Any, count: int, told: Mapping[str, Any]) -> tuple[str, ...] | None:
    if given is None:
        from repvgg.checkpoints.hub import imagenet_class_names

        # timm's own repositories say so by their tag alone.
        return imagenet_class_names() if count == 1000 and str(told.get("tag", "")).endswith("in1k") else None
    if isinstance(given, dict):
        given = [given[str(place)] for place in range(len(given))]
    if len(given) != count:
        raise CheckpointError(f"The repository names {len(given)} classes of {count}.")
    # What another program would take for a command to the terminal is not part of a name.
    return tuple("".join(one if one.isprintable() else " " for one in str(name)) for name in given)


def _adaptation(arguments: Mapping[str, Any], own: Mapping[str, Any]) -> Adaptation:
    if arguments.get("global_pool", "avg") != "avg" or set(arguments) - {*_HARMLESS, "output_stride", "global_pool"}:
        raise CheckpointError(
            "The repository changes timm's network by arguments that are not known here: "
            f"{', '.join(shown(name) for name in arguments)}."
        )
    given = {name: own[name] for name in ("stem_strides", "output_stride", "dilate_first") if name in own}
    if not given and "output_stride" in arguments:
        # timm leaves the first block of a stage with the dilation of the stage before.
        given = {"output_stride": int(arguments["output_stride"]), "dilate_first": False}
    return PUBLISHED.changed(**given)


def timm_builds(variant: str | None, adaptation: Adaptation) -> str | None:
    """The name of a network in timm, if timm has it with these strides and this dilation."""
    name = TIMM_NAMES.get(variant or "")
    # Its MobileOne leaves dilation out.
    same = adaptation.stem_strides == PUBLISHED.stem_strides and (
        adaptation.output_stride == PUBLISHED.output_stride
        or (not adaptation.dilate_first and (variant or "").startswith("RepVGG"))
    )
    return name if same else None
