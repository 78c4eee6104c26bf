"""Image files in folders as a source of batches."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from repvgg.base.errors import InputError
from repvgg.data.folder import LabelledImages
from repvgg.data.images import load_image
from repvgg.pipeline.sampling_order import Plan, plainly


@dataclass(frozen=True, eq=False)
class FolderSource:
    """Files as they lie in their folders.

    Attributes:
        images: the files and their labels.
        plain: (N,) truth values, True for files which TensorFlow's JPEG decoder reads as Pillow does
            (`repvgg.data.scan`). None where nobody has looked: then Pillow reads them all, which is slower.

    Raises:
        InputError: if there is no image, or `plain` has another length.
    """

    images: LabelledImages
    plain: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.images):
            raise InputError("There are no images to make batches of.")
        if self.plain is not None and len(self.plain) != len(self.images):
            raise InputError(f"`plain` has {len(self.plain)} values for {len(self.images)} images.")

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their labels."""
        return self.images.class_names

    @property
    def labels(self) -> np.ndarray:
        """(N,) int32."""
        return self.images.labels

    def routes(self) -> tuple[bool, bool]:
        """Whether there are plain files, and whether there are others."""
        plain = self.plain is not None and bool(np.any(self.plain))
        return plain, self.plain is None or not bool(np.all(self.plain))

    def training_items(self, plan: Plan) -> Any:
        """A dataset of (position, item, label)."""
        lookup = self._lookup()

        def epoch_of(epoch: Any, start: Any, stop: Any) -> Any:
            positions = plan.position(epoch, tf.range(start, stop))
            mine = plan.owner(positions) == plan.shard.index
            images = plan.order(epoch)[start:stop]
            return tf.data.Dataset.from_tensor_slices((positions[mine], images[mine]))

        items = plan.each_epoch(epoch_of).map(plainly(lambda position, image: (position, *lookup(image))))
        return plan.expected(items)

    def evaluation_items(self, indices: np.ndarray) -> Any:
        """A dataset of (item, label) of the images at `indices`."""
        return tf.data.Dataset.from_tensor_slices(indices.astype(np.int64)).map(plainly(self._lookup()))

    def jpeg(self, item: Any) -> Any:
        """The bytes of a plain file."""
        return tf.io.read_file(item["path"])

    def check_channels(self, channels: int) -> None:
        """Files have whatever channels they are asked for."""

    def pixels(self, item: Any, channels: int) -> Any:
        """Any other file, read by Pillow: (H, W, channels) uint8."""

        def read(path: bytes) -> np.ndarray:
            image = load_image(os.fsdecode(path), channels)
            return np.asarray(image).reshape(image.height, image.width, channels)

        pixels = tf.numpy_function(read, [item["path"]], tf.uint8, stateful=False)
        pixels.set_shape((None, None, channels))
        return pixels

    def _lookup(self) -> Callable[[Any], tuple[Any, Any]]:
        # File names need not be valid Unicode; their bytes always open them.
        paths = tf.constant([os.fsencode(path) for path in self.images.paths])
        labels = tf.constant(self.images.labels, tf.int32)
        plain = tf.constant(np.zeros(len(self), bool) if self.plain is None else self.plain)

        def look_up(index: Any) -> tuple[Any, Any]:
            return {"path": tf.gather(paths, index), "plain": tf.gather(plain, index)}, tf.gather(labels, index)

        return look_up
