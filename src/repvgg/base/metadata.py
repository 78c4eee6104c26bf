"""What a model carries besides its weights: class names, preprocessing, origin and form."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from repvgg.base.errors import FileError, InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Form = Literal["training", "deploy"]
Input = Literal["float32", "uint8"]
"""Normalized images, or pixels from 0 to 255 that the network normalizes itself."""

Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the network's input.

    The image becomes RGB (or grey where `channels` is 1), its shorter side is resized to `resize` pixels with Pillow's
    bilinear filter, the centre `crop` x `crop` is cut out, and values in [0, 1] are normalized: (x - mean) / std.

    Raises:
        InputError: if the numbers make no preprocessing.
    """

    crop: int = 224
    resize: int = 256
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if not 1 <= self.crop <= self.resize:
            raise InputError(f"`crop` (={self.crop}) must be at least 1 and at most `resize` (={self.resize}).")
        if len(self.mean) != len(self.std) or len(self.mean) not in (1, 3):
            raise InputError(
                f"`mean` and `std` need 1 or 3 values each. Received {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise InputError(f"`std` must be above 0. Received: {self.std}.")

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey."""
        return len(self.mean)

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """From pixels (..., channels), 0 to 255, to what the network was trained on, in float32."""
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        normalized: np.ndarray = (pixels.astype(np.float32) / 255 - mean) / std
        return normalized

    def restore(self, images: np.ndarray) -> np.ndarray:
        """The pixels, in uint8, that `normalize` made these images from.

        Raises:
            InputError: if they were no pixels.
        """
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        exact = (images * std + mean) * 255
        pixels = np.rint(exact)
        # Normalizing and going back costs some 1e-5 of a pixel's step; what is no pixel at all is anywhere between two.
        if not (
            np.abs(exact - pixels).max(initial=0) < 1e-2 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 255
        ):
            raise InputError(
                "These images are no normalized pixels, and the network takes pixels from 0 to 255. Pass images in "
                "uint8, or images that were normalized with the preprocessing it carries."
            )
        restored: np.ndarray = pixels.astype(np.uint8)
        return restored


@dataclass(frozen=True)
class Metadata:
    """Travels with a model through saving, conversion and export.

    Attributes:
        input: what the network takes; "uint8" if it normalizes by `preprocessing` itself.
        output: what its one output is.
        precision: what its weights are stored in.
        quantization: of an INT8 artifact: its scheme, and accuracy and agreement with the network in float32.
    """

    variant: str | None = None
    form: Form = "training"
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    source: str | None = None
    verification: Mapping[str, Any] | None = field(default=None, hash=False)
    input: Input = "float32"
    output: Output = "logits"
    precision: str = "float32"
    quantization: Mapping[str, Any] | None = field(default=None, hash=False)

    def to_json(self) -> str:
        """A JSON object; `from_json` reads it back."""
        return json.dumps({"repvgg": 1, **asdict(self)}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Reads what `to_json` wrote.

        Raises:
            FileError: if it is no such text.
        """
        try:
            fields = json.loads(text)
            if fields.pop("repvgg") != 1:
                raise FileError("The model's metadata were written by a newer version of repvgg. Upgrade it.")
            if fields.get("preprocessing") is not None:
                fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
            if fields.get("class_names") is not None:
                fields["class_names"] = tuple(fields["class_names"])
            return cls(**fields)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"The model's metadata cannot be read: {error}.") from error


def get_metadata(model: Any) -> Metadata:
    """The metadata attached to a Keras model; empty ones if there are none."""
    metadata = getattr(model, "repvgg_metadata", None)
    return metadata if isinstance(metadata, Metadata) else Metadata()


def set_metadata(model: Any, metadata: Metadata | None = None, **changes: Any) -> None:
    """Attaches `metadata` to a Keras model, or changes single fields of what it has.

    Example:
        >>> set_metadata(model, class_names=("daisy", "rose"))
    """
    model.repvgg_metadata = replace(metadata or get_metadata(model), **changes)
