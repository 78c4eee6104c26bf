"""What a model carries besides its weights: class names, preprocessing, origin and form."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from repvgg.base.errors import FileError, InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CHANNELS = (1, 3, 4)
"""Of images in files: grey, RGB, and RGB with a fourth one, be it transparency, depth or infrared."""

GREY_MEAN, GREY_STD = (0.449,), (0.226,)
FOURTH_MEAN, FOURTH_STD = 0.5, 0.5

Form = Literal["training", "deploy"]
Input = Literal["float32", "uint8"]
"""Normalized images, or pixels from 0 to 255 that the network normalizes itself."""

Output = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the network's input.

    The image becomes RGB, grey where there is one mean, or RGB and a fourth channel where there are four. Its shorter
    side is resized to `resize` pixels with Pillow's bilinear filter, the centre `crop` x `crop` is cut out, and values
    in [0, 1] are normalized: (x - mean) / std.

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
        if len(self.mean) != len(self.std) or len(self.mean) not in CHANNELS:
            raise InputError(
                f"`mean` and `std` need 1, 3 or 4 values each. Received {len(self.mean)} and {len(self.std)}."
            )
        if min(self.std) <= 0:
            raise InputError(f"`std` must be above 0. Received: {self.std}.")

    @property
    def channels(self) -> int:
        """3 for RGB, 1 for grey, 4 for RGB and one more."""
        return len(self.mean)

    @classmethod
    def for_channels(cls, channels: int, crop: int = 224, resize: int = 256) -> "Preprocessing":
        """ImageNet's mean and deviation, of grey where there is one channel; a fourth goes from -1 to 1.

        Raises:
            InputError: if images in files have no such channels.
        """
        colours = {1: (GREY_MEAN, GREY_STD), 3: (IMAGENET_MEAN, IMAGENET_STD)}
        colours[4] = ((*IMAGENET_MEAN, FOURTH_MEAN), (*IMAGENET_STD, FOURTH_STD))
        if channels not in colours:
            raise InputError(
                "Images are read from files with 1 channel (grey), 3 (RGB) or 4 (RGB and transparency, or whatever the "
                f"fourth one is), and {channels} are needed. Train and predict on arrays with Keras's own `fit` and "
                "`predict`; converting, verifying and exporting work with any number."
            )
        mean, std = colours[channels]
        return cls(crop, resize, mean, std)

    def normalize(self, pixels: np.ndarray) -> np.ndarray:
        """From pixels (..., channels), 0 to 255, to what the network was trained on, in float32."""
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        normalized: np.ndarray = (pixels.astype(np.float32) / 255 - mean) / std
        return normalized

    def restore(self, images: np.ndarray) -> np.ndarray:
        """The pixels, in uint8, that `normalize` made these images from.

        Raises:
            InputError: if they cannot have been pixels.
        """
        mean, std = (np.asarray(values, dtype=np.float32) for values in (self.mean, self.std))
        exact = (images * std + mean) * 255
        pixels = np.rint(exact)
        # Normalizing and going back costs some 1e-5 of a pixel's step; what was never a pixel is anywhere between two.
        if not (
            np.abs(exact - pixels).max(initial=0) < 1e-2 and pixels.min(initial=0) >= 0 and pixels.max(initial=0) <= 255
        ):
            raise InputError(
                "These images are not normalized pixels, and the network takes pixels from 0 to 255. Pass images in "
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
        quantization: of an INT8 artifact: its scheme, the `processor` it was made for, and accuracy and agreement with
            the network in float32.
        optimizer: what multiplied its gradients, where something did: the update rule, and where the scales are from.
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
    optimizer: Mapping[str, Any] | None = field(default=None, hash=False)

    def to_json(self) -> str:
        """A JSON object; `from_json` reads it back."""
        return json.dumps({"repvgg": 1, **asdict(self)}, ensure_ascii=False, indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Reads what `to_json` wrote.

        Raises:
            FileError: if it is not such a text.
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
