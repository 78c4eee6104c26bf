"""BN recalibration: batch normalizations get the statistics of real images, and the network computes what it did."""

from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from repvgg.base.errors import InputError
from repvgg.blocks.layers import BatchNorm, ReparameterizableBlock, recorded_inputs
from repvgg.models.layers import all_layers

Array = npt.NDArray[Any]


def recalibrate_batch_norm(model: Any, images: Any) -> None:
    """Sets every batch normalization of a training form to the statistics of `images`, in place.

    Gamma and beta change with mean and variance so that inference mode gives the same answers as before. Training mode,
    which normalizes with a batch's own statistics, then starts from the same function too. Made for networks whose
    branches were expanded from a deploy form and whose statistics are not those of any image.

    Args:
        model: a network in training form.
        images: a batch (N, H, W, C), prepared as for training; the more the better, 256 are plenty.

    Raises:
        InputError: if the model has no block in training form.

    Example:
        >>> model = load_checkpoint("deploy.pth", form="training", from_deploy="expand")  # doctest: +SKIP
        >>> recalibrate_batch_norm(model, images)  # doctest: +SKIP
    """
    layers = all_layers(model)
    blocks = [layer for layer in layers if isinstance(layer, ReparameterizableBlock) and not layer.deploy]
    if not blocks:
        raise InputError(f"'{model.name}' has no block in training form, so there are no statistics to recalibrate.")
    # One pass is enough: as no block's answer changes, neither does any block's input.
    with recorded_inputs() as recorded:
        model(keras.ops.convert_to_tensor(images), training=False)
    for block in blocks:
        inputs = keras.ops.convert_to_tensor(recorded[id(block)])
        with recorded_inputs("normalizations") as seen:
            block.call_branches(inputs, training=False)
        for norm in all_layers(block):
            if isinstance(norm, BatchNorm):
                _recalibrate(norm, seen[id(norm)], block.data_format)


def _recalibrate(norm: BatchNorm, inputs: Array, data_format: str) -> None:
    def read(variable: Any) -> Array:
        return np.asarray(keras.ops.convert_to_numpy(variable), dtype=np.float64)

    axes = (0, 1, 2) if data_format == "channels_last" else (0, 2, 3)
    values = np.asarray(inputs, dtype=np.float64)
    mean, variance = values.mean(axes), values.var(axes)
    before = norm.read(read)
    norm.gamma.assign(before.scale * np.sqrt(variance + norm.epsilon))
    norm.beta.assign(before.shift + before.scale * mean)
    norm.moving_mean.assign(mean)
    norm.moving_variance.assign(variance)
