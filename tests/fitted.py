"""A network that knows the digits without training: random features, and the best linear classifier on them."""

from functools import cache
from typing import Any

import keras
import numpy as np

import repvgg
from helpers import infer, trained_like
from repvgg.demo.digits import CLASS_NAMES, PREPROCESSING, Digits, load_digits

IMAGES = 300
"""Test images that are looked at; calibration takes others."""


@cache
def digits() -> Digits:
    return load_digits()


def calibration(count: int = 64) -> np.ndarray:
    return digits().train_images[:count]


def evaluation() -> tuple[np.ndarray, np.ndarray]:
    return digits().test_images[:IMAGES], digits().test_labels[:IMAGES]


def fitted(**settings: Any) -> Any:
    """A deployed network for the digits; blocks with stride 2 and blocks with an identity branch, in five stages."""
    keras.utils.set_random_seed(0)
    options = {"num_blocks": [1, 2, 2, 1], "width_multiplier": [0.25] * 4, "num_classes": 10, **settings}
    deployed = repvgg.reparameterize(trained_like(repvgg.RepVGG(input_shape=(32, 32, 3), **options)))
    classifier = deployed.get_layer("classifier")
    features = keras.Model(deployed.input, classifier.input)
    images, labels = digits().train_images, digits().train_labels
    inputs = np.concatenate([infer(features, images[start : start + 256]) for start in range(0, len(images), 256)])
    # Least squares towards one-hot labels, with a little ridge.
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1), np.float32)], axis=1).astype(np.float64)
    ridge = 1e-4 * np.trace(inputs.T @ inputs) / inputs.shape[1] * np.eye(inputs.shape[1])
    solution = np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ np.eye(10)[labels])
    classifier.kernel.assign(solution[:-1])
    classifier.bias.assign(solution[-1])
    repvgg.set_metadata(deployed, class_names=CLASS_NAMES, preprocessing=PREPROCESSING)
    return deployed
