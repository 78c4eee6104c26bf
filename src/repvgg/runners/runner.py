"""The seam between networks and everything that examines them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.base.words import counted

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

    @property
    def takes_uint8(self) -> bool:
        """Whether images go in as pixels from 0 to 255, because the network normalizes them itself."""
        return self.metadata.input == "uint8"

    @property
    def gives_probabilities(self) -> bool:
        """Whether probabilities come out instead of logits."""
        return self.metadata.output == "probabilities"

    @abstractmethod
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes), or whatever the network gives, for images (N, H, W, C): float32, or uint8 pixels."""

    def outputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:
        """All outputs by name; for a classifier its logits alone."""
        return {"output": self(images)}

    def repeated(self, images: np.ndarray) -> Callable[[], object]:
        """Calls that all run the network on the same `images`, with as little around it as the runtime allows.

        What a benchmark times: layouts are changed and tensors made once, before. A call returns when the network has
        answered.
        """
        return lambda: self(images)

    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks that can be run alone; none where the format hides them."""
        return ()

    def block_inputs(self, images: np.ndarray) -> Mapping[str, np.ndarray]:  # noqa: ARG002
        """What each block is given while `images` run through; empty where it cannot be seen."""
        return {}

    def run_block(self, name: str, inputs: np.ndarray) -> np.ndarray:  # noqa: ARG002
        """Output of one block alone. Only for names in `blocks()`."""
        raise KeyError(name)


def refuse_threads(path: Path, threads: int | None) -> None:
    """For runtimes whose number of threads is the whole process's.

    Raises:
        InputError: if `threads` are asked for.
    """
    if threads is not None:
        raise InputError(
            f"'{path}' runs in Keras's backend, whose number of threads is set for the whole process before it starts: "
            "tf.config.threading.set_intra_op_parallelism_threads or torch.set_num_threads."
        )


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


def as_input(runner: Runner, images: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
    """`images` in the type that an artifact wants.

    Raises:
        InputError: if they are too many or too few, of another size, or not pixels where the artifact takes pixels.
    """
    images = check_images(np.asarray(images), runner)
    if runner.batch_size is not None and len(images) != runner.batch_size:
        raise InputError(
            f"'{runner.name}' takes batches of {counted(runner.batch_size, 'image')}; these are {len(images)}."
        )
    if runner.takes_uint8 and images.dtype != np.uint8:
        raise InputError(f"'{runner.name}' takes pixels from 0 to 255 in uint8; these images are in {images.dtype}.")
    return images.astype(dtype, copy=False)


def images_for(runner: Runner, images: np.ndarray, preprocessing: Preprocessing | None = None) -> np.ndarray:
    """`images` as `runner` takes them, whichever of the two ways they are given in: normalized, or pixels in uint8.

    Args:
        preprocessing: how pixels are normalized; what the runner carries, or ImageNet's way, if None.

    Raises:
        InputError: if the runner takes pixels and these are not.
    """
    if (images.dtype == np.uint8) == runner.takes_uint8:
        return images
    preprocessing = (
        preprocessing or runner.metadata.preprocessing or Preprocessing.for_channels(runner.input_shape[2] or 3)
    )
    if images.shape[-1] != preprocessing.channels:
        raise InputError(
            f"The images have {images.shape[-1]} channels, and the preprocessing of '{runner.name}' is for "
            f"{preprocessing.channels}."
        )
    return preprocessing.restore(images) if runner.takes_uint8 else preprocessing.normalize(images)


def logits_of(runner: Runner, output: np.ndarray) -> np.ndarray:
    """A classifier's output as logits: as it is, or the logarithm of probabilities, the same but for a constant."""
    if not runner.gives_probabilities:
        return output
    # A probability that became 0 has no logarithm; the smallest normal number of float32 stands for it.
    logits: np.ndarray = np.log(np.maximum(output.astype(np.float64), np.finfo(np.float32).tiny))
    return logits
