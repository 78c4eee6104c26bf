"""How the tests of this folder convert a model."""

from typing import Any

import keras
import numpy as np

from helpers import (
    assert_same_values,
    infer,
    relative_error,
    trained_like,
    values_of,
)
from repvgg.blocks import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.models.layers import all_layers


def assert_stock(model: Any) -> None:
    """`model` consists of Keras's own layers, at any depth."""
    for layer in all_layers(model):
        assert type(layer).__module__.startswith("keras."), layer


def convert(model: Any) -> Any:
    """The converted `model`; `model` must be left bit for bit as it was."""
    before, structure = values_of(model), keras.saving.serialize_keras_object(model)
    deployed = reparameterize(model)
    assert_same_values(before, values_of(model))
    assert keras.saving.serialize_keras_object(model) == structure
    assert not {id(weight) for weight in model.weights} & {id(weight) for weight in deployed.weights}
    return deployed


def assert_converts(model: Any, images: Any, tolerance: float = 1e-5) -> Any:
    """Converts `model`, whose outputs stay the same on `images`."""
    trained_like(model)
    expected = infer(model, images)
    deployed = convert(model)
    assert not any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(deployed))
    found = infer(deployed, images)
    keras.tree.assert_same_structure(expected, found)
    for first, second in zip(keras.tree.flatten(expected), keras.tree.flatten(found), strict=True):
        assert np.abs(first).max() > 1e-3
        assert relative_error(first, second) < tolerance
    return deployed
