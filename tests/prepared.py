"""A tiny network that is prepared for quantization-aware training."""

from functools import cache
from typing import Any

import keras
import pytest

from helpers import (
    Array,
    random_images,
    trained_like,
)
from repvgg.blocks import BLOCKS
from repvgg.quantization.qat import finish_qat, prepare_qat
from repvgg.quantization.qat_scales import QuantizationScales

IMAGES = random_images((8, 24, 25, 3))
both_grids = pytest.mark.parametrize("per_channel", [False, True], ids=["per_tensor", "per_channel"])


def tensor(array: Any) -> Any:
    return keras.ops.convert_to_tensor(array, dtype="float32")


def tiny(kind: str = "RepVGGBlock", **options: Any) -> Any:
    """Three blocks and a classifier: with stride, with identity, with groups."""
    images = keras.Input((None, None, 3))
    block = BLOCKS[kind]
    x = block(8, 2, name="first", **options)(images)
    x = block(8, name="second", **options)(x)
    x = block(16, 2, 2, name="third", **options)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return trained_like(keras.Model(images, keras.layers.Dense(5, name="classifier")(x), name="tiny"))


LAYERS = {"first", "second", "third", "pool", "classifier"}


def calibrated(model: Any, images: Array = IMAGES, **options: Any) -> Any:
    """Prepared, with the ranges of one batch; nothing is trained."""
    prepared = prepare_qat(model, calibration_batches=1, **options)
    prepared(tensor(images), training=True)
    return prepared


@cache
def finished(
    kind: str = "RepVGGBlock", *, per_channel: bool = False, weight_bits: int = 7
) -> tuple[Any, Any, QuantizationScales]:
    """A prepared tiny network, what it is handed over as, and its grids. Nobody may change them.

    Kernels of 7 bits are right on every processor.
    """
    prepared = calibrated(tiny(kind), per_channel=per_channel, weight_bits=weight_bits)
    return prepared, *finish_qat(prepared)
