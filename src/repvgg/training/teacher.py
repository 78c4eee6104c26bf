"""Learning from a network's answers: its probabilities as targets, beside the labels or in their place.

They say of every image what a network thinks of all classes, mixed and cropped as it is, so the same loss that fits
labels makes one network answer like another. Source: Hinton et al., "Distilling the Knowledge in a Neural Network",
arXiv 1503.02531, at temperature 1.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.checkpoints import load_checkpoint
from repvgg.checkpoints.repository import is_repository
from repvgg.checkpoints.zoo import IMAGENET, create_model
from repvgg.conversion import reparameterize
from repvgg.models.full_precision import in_full_precision
from repvgg.models.layers import all_layers
from repvgg.runners import RUNNERS, load_runner
from repvgg.runners.classifier import class_logits, softmax
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner


def open_teacher(teacher: Any) -> Runner | None:
    """The teacher as a runner: a network, a runner, a file of either, or a name, which stands for published weights.

    Raises:
        FileError: if there is no such file, or it cannot be read.
        VerificationError: if its two forms differ.
    """
    if teacher is None or isinstance(teacher, Runner):
        return teacher
    if not isinstance(teacher, str | Path):
        return _deployed(teacher)
    path = Path(teacher)
    if not path.exists():
        return _deployed(create_model(str(teacher), weights=None if is_repository(str(teacher)) else IMAGENET))
    if path.is_dir() or path.suffix in RUNNERS:
        return load_runner(path)
    return KerasRunner(load_checkpoint(path), name=path.name)


def _deployed(teacher: Any) -> Runner:
    """In its deploy form, which is faster and answers the same."""
    return KerasRunner(in_deploy_form(teacher), teacher.name)


def in_deploy_form(model: Any) -> Any:
    """The model in float32, converted if there is a block to convert."""
    converts = any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model))
    return reparameterize(model) if converts else in_full_precision(model)


def check_teacher(teacher: Runner, class_names: tuple[str, ...], crops: Preprocessing) -> None:
    """Makes sure that a network can be learnt from.

    Raises:
        InputError: if it was trained on other classes, sees colours otherwise, or cannot take such images.
    """
    names = teacher.metadata.class_names
    if names is not None and names != class_names:
        raise InputError(
            f"The teacher '{teacher.name}' tells other classes apart ({', '.join(names[:8])}) than the images are in "
            f"({', '.join(class_names[:8])}). They must be the same, in the same order."
        )
    own = teacher.metadata.preprocessing
    if own is not None and (own.mean, own.std) != (crops.mean, crops.std):
        raise InputError(
            f"The teacher '{teacher.name}' takes colours with mean {own.mean} and standard deviation {own.std}, and "
            f"this run prepares them with {crops.mean} and {crops.std}."
        )
    height, width, _ = teacher.input_shape
    if (height or crops.crop, width or crops.crop) != (crops.crop, crops.crop):
        raise InputError(
            f"The teacher '{teacher.name}' takes images of {height} x {width} px, and this run trains at {crops.crop} "
            f"px. Give --size {height}, or a teacher without a fixed size."
        )
    logits = class_logits(teacher, np.zeros((1, crops.crop, crops.crop, crops.channels), np.float32))
    if logits.shape[1] != len(class_names):
        raise InputError(
            f"The teacher '{teacher.name}' has {logits.shape[1]} outputs, and the images are in {len(class_names)} "
            "classes."
        )


def taught(batches: Any, teacher: Runner, share: float) -> Any:
    """The same images with targets of which `share` are the teacher's probabilities, and the rest what they were.

    Args:
        batches: a `tf.data.Dataset` of images (b, S, S, C) and targets (b, classes).
    """
    import tensorflow as tf

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for images, targets in batches.as_numpy_iterator():
            probabilities = softmax(class_logits(teacher, images))
            yield images, (share * probabilities + (1 - share) * targets).astype(np.float32)

    # A data set again, because that is what devices can share.
    made = tf.data.Dataset.from_generator(pairs, output_signature=batches.element_spec)
    return made.apply(tf.data.experimental.assert_cardinality(batches.cardinality())).prefetch(1)
