"""The same networks from stock Keras layers only: what one would write without this package.

The strided 1x1 branch reads every second pixel before a stride-1 convolution; without that, TensorFlow's CPU kernels
corrupt memory in training, and there would be nothing to compare with.
"""

from typing import Any

import keras

from repvgg import Architecture


def stock_training_model(architecture: Architecture, num_classes: int, image_size: int) -> Any:
    """The training form in `keras.layers.Conv2D` and `keras.layers.BatchNormalization`."""
    inputs = keras.Input((image_size, image_size, 3))
    x = inputs
    for spec in architecture.blocks():
        stride = spec.strides
        wide = keras.layers.ZeroPadding2D(1)(x) if stride > 1 else x
        padding = "valid" if stride > 1 else "same"
        dense = keras.layers.Conv2D(spec.filters, 3, stride, padding=padding, groups=spec.groups, use_bias=False)(wide)
        sampled = x[:, ::stride, ::stride, :] if stride > 1 else x
        point = keras.layers.Conv2D(spec.filters, 1, groups=spec.groups, use_bias=False)(sampled)
        branches = [_norm()(dense), _norm()(point)]
        if spec.shape.keeps_shape:
            branches.append(_norm()(x))
        x = keras.layers.ReLU()(keras.layers.Add()(branches))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(num_classes)(x))


def _norm() -> Any:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
