"""From grey levels to the network's input."""

from typing import Any

import numpy as np
import tensorflow as tf

from repvgg.base.metadata import Preprocessing


def normalize(pixels: Any, preprocessing: Preprocessing) -> Any:
    """(S, S, C) float32 in [0, 255] to (value / 255 - mean) / std."""
    side = preprocessing.crop
    mean, std = (np.asarray(values, np.float64) for values in (preprocessing.mean, preprocessing.std))
    # Whole rows at a time: broadcasting over three channels is several times as slow.
    factor = np.tile(1 / (255 * std), side).astype(np.float32)
    offset = np.tile(mean / std, side).astype(np.float32)
    rows = tf.reshape(pixels, (side, side * preprocessing.channels)) * factor - offset
    return tf.reshape(rows, (side, side, preprocessing.channels))
