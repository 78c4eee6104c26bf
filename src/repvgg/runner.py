"""The seam between networks and everything that examines them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from repvgg.errors import InputError
from repvgg.metadata import Metadata

InputShape = tuple[int | None, int | None, int | None]


class Runner(ABC):
    """Something that maps a batch of images to logits.

    A training model, a deployed model and every reloaded artifact are Runners, so verification, evaluation and
    benchmarks know no format.

    Attributes:
        name: what to call it in tables.
        input_shape: (height, width, channels) of one image, None where a side may vary.
        metadata: class names, preprocessing and origin, as far as they are known.
    """

    name: str
    input_shape: InputShape
    metadata: Metadata = Metadata()
    batch_size: int | None = None
    """Images in every call; None if any number will do."""

    @abstractmethod
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes), or whatever the network gives, for images (N, H, W, C) in float32."""

    def outputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """All outputs by name; for a classifier its logits alone."""
        return {"output": self(images)}

    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks that can be run alone; none where the format hides them."""
        return ()

    def block_inputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """What each block is given while `images` run through; empty where it cannot be seen."""
        return {}

    def run_block(self, name: str, inputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Output of one block alone. Only for names in `blocks()`."""
        raise KeyError(name)


def check_images(images: np.ndarray, runner: Runner) -> np.ndarray:
    """`images` as a float32 batch that fits `runner`.

    Raises:
        InputError: naming what was given and what was expected.
    """
    if images.ndim != 4:
        raise InputError(f"Images come as one array (N, H, W, C). Received an array of shape {images.shape}.")
    for axis, (got, expected) in enumerate(zip(images.shape[1:], runner.input_shape, strict=True)):
        if expected is not None and got != expected:
            side = ("height", "width", "channels")[axis]
            raise InputError(
                f"'{runner.name}' expects images of shape {runner.input_shape} (height, width, channels); "
                f"the {side} of these is {got}."
            )
    return images
