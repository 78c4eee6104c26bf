"""Answers that another program gave, as a `Runner`: what a network is compared with when only numbers are at hand."""

from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.base.files import require_file
from repvgg.runners.runner import Runner


class RecordedRunner(Runner):
    """Gives the logits that were recorded for each image, and knows no others.

    Args:
        images: (N, H, W, C), as the network got them.
        logits: (N, classes).

    Raises:
        InputError: if these are not images, or not as many as there are logits.
    """

    def __init__(self, images: np.ndarray, logits: np.ndarray, name: str = "recorded logits") -> None:
        if images.ndim != 4 or len(images) == 0 or len(images) != len(logits):
            raise InputError(
                f"Images (N, H, W, C) and logits (N, classes) were expected, as many of both. Received arrays of "
                f"shapes {images.shape} and {logits.shape}."
            )
        self.name = name
        self.images = np.ascontiguousarray(images, dtype=np.float32)
        height, width, channels = images.shape[1:]
        self.input_shape = (height, width, channels)
        self._logits = dict(zip(map(np.ndarray.tobytes, self.images), np.asarray(logits), strict=True))

    def __call__(self, images: np.ndarray) -> np.ndarray:
        keys = [image.tobytes() for image in np.ascontiguousarray(images, dtype=np.float32)]
        if any(key not in self._logits for key in keys):
            raise InputError(f"'{self.name}' has answers for its own images only.")
        return np.stack([self._logits[key] for key in keys])

    @classmethod
    def load(cls, path: Path, channels: int | None = None) -> "RecordedRunner":
        """Reads a `.npz` file of two arrays: the images, as (N, H, W, C) or PyTorch's (N, C, H, W), and the logits.

        `np.savez("reference.npz", images=images.numpy(), logits=model(images).detach().numpy())` writes it.

        Args:
            channels: of the network that is to be compared; it tells the two layouts apart, the first of which is taken
                where both would do. 3 if None.

        Raises:
            FileError: if there is no such file, or other arrays are in it.
        """
        require_file(path, what="file of logits")
        arrays = _arrays(path)
        images = [array for array in arrays.values() if array.ndim == 4]
        logits = [array for array in arrays.values() if array.ndim == 2]
        if len(arrays) != 2 or len(images) != 1 or len(logits) != 1 or len(images[0]) != len(logits[0]):
            found = ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "nothing"
            raise FileError(
                f"'{path}' should hold two arrays, images (N, H, W, C) or (N, C, H, W) and their logits (N, classes). "
                f"It holds {found}."
            )
        channels = channels or 3
        first = images[0].shape[1] == channels and images[0].shape[3] != channels
        return cls(images[0].transpose(0, 2, 3, 1) if first else images[0], logits[0], path.name)


def _arrays(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:
        raise FileError(f"'{path}' cannot be read as a NumPy archive (.npz): {error}.") from error
