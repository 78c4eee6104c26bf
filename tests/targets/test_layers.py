"""Every layer that is written, with the settings that matter, in every target: one network with an output for each."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from exported import GENERAL, TOLERANCES, write
from helpers import infer, random_images, relative_error, trained_like
from repvgg.runners import load_runner

for module in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)

CHANNELS = 4
Make = Callable[[Any], Any]


def adapted(**settings: Any) -> Any:
    return layers.Normalization(mean=[0.2, -0.5, 1.5, 0.1], variance=[0.5, 2.0, 0.1, 1.0], **settings)


ANY_SIZE: dict[str, Make] = {
    "nearest": lambda: layers.UpSampling2D((2, 3)),
    "bilinear": lambda: layers.UpSampling2D((3, 2), interpolation="bilinear"),
    "resized_up": lambda: layers.Resizing(23, 17),
    "resized_down": lambda: layers.Resizing(5, 7),
    "resized_nearest": lambda: layers.Resizing(19, 8, interpolation="nearest"),
    "transposed_2x2": lambda: layers.Conv2DTranspose(3, 2, strides=2),
    "transposed_valid": lambda: layers.Conv2DTranspose(3, (3, 4), strides=(2, 1), activation="relu"),
    "transposed_same": lambda: layers.Conv2DTranspose(5, 3, strides=2, padding="same", use_bias=False),
    "transposed_even_kernel": lambda: layers.Conv2DTranspose(5, 4, strides=2, padding="same"),
    "transposed_with_gaps": lambda: layers.Conv2DTranspose(2, 2, strides=3),
    "transposed_same_with_gaps": lambda: layers.Conv2DTranspose(2, 1, strides=2, padding="same"),
    "transposed_longer": lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="valid", output_padding=1),
    "transposed_longer_same": lambda: layers.Conv2DTranspose(2, 3, strides=2, padding="same", output_padding=1),
    "max": layers.MaxPooling2D,
    "max_same": lambda: layers.MaxPooling2D(3, strides=2, padding="same"),
    "max_overlapping": lambda: layers.MaxPooling2D((3, 2), strides=(1, 2)),
    "average": lambda: layers.AveragePooling2D((2, 3)),
    "average_same": lambda: layers.AveragePooling2D((3, 4), strides=2, padding="same"),
    "average_dense": lambda: layers.AveragePooling2D(3, strides=1, padding="same"),
    "global_max": layers.GlobalMaxPooling2D,
    "global_max_kept": lambda: layers.GlobalMaxPooling2D(keepdims=True),
    "global_average": layers.GlobalAveragePooling2D,
    "global_average_kept": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "convolution_same_2": lambda: layers.Conv2D(3, 3, strides=2, padding="same"),
    "convolution_same_3": lambda: layers.Conv2D(3, (3, 5), strides=(3, 2), padding="same"),
    "convolution_even_kernel": lambda: layers.Conv2D(3, 4, padding="same"),
    "rescaled": lambda: layers.Rescaling(1 / 127.5, offset=-1),
    "rescaled_channels": lambda: layers.Rescaling([1.0, 2.0, 3.0, 4.0], offset=[0.5, 0.0, -1.0, 2.0]),
    "normalized": adapted,
    "denormalized": lambda: adapted(invert=True),
    "normalized_alike": lambda: layers.Normalization(axis=None, mean=0.3, variance=2.0),
    "softmax": layers.Softmax,
    "softmax_activation": lambda: layers.Activation("softmax"),
    "flat": layers.Flatten,
    "dropped": lambda: layers.Dropout(0.5),
    "channels_dropped": lambda: layers.SpatialDropout2D(0.5),
    "identity": layers.Identity,
    "relu6": lambda: layers.ReLU(max_value=6),
    **{
        name: lambda name=name: layers.Activation(name)
        for name in ("relu", "relu6", "sigmoid", "tanh", "silu", "gelu", "hard_sigmoid", "hard_swish")
    },
    "convolution_gelu": lambda: layers.Conv2D(3, 1, activation="gelu"),
    "convolution_softmax": lambda: layers.Conv2D(3, 1, activation="softmax"),
}
"""What can be written for images of any size."""

FIXED_SIZE: dict[str, Make] = {
    "average_apart": lambda: layers.AveragePooling2D(2, strides=3, padding="same"),
    "max_apart": lambda: layers.MaxPooling2D(1, strides=2, padding="same"),
    "convolution_apart": lambda: layers.Conv2D(3, (2, 1), strides=3, padding="same"),
    "rows": lambda: layers.Reshape((-1, CHANNELS)),
    "rows_softmax": lambda: keras.Sequential([layers.Reshape((-1, CHANNELS)), layers.Softmax()]),
    "other_image": lambda: layers.Reshape((10, 13, CHANNELS)),
    "there_and_back": lambda: keras.Sequential([layers.Flatten(), layers.Reshape((13, 10, CHANNELS))]),
    "flat_classifier": lambda: keras.Sequential([layers.Flatten(), layers.Dense(3)]),
}


def several_inputs(x: Any) -> dict[str, Any]:
    """Layers that join tensors, and tensors that several layers read."""
    narrow = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return {
        "added": layers.Add()([x, narrow, x]),
        "multiplied": layers.Multiply()([x, narrow]),
        "joined": layers.Concatenate()([x, layers.ReLU()(x), x]),
        "joined_vectors": layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)]),
        "padded_twice": layers.Conv2D(2, 3, padding="same")(layers.ZeroPadding2D(((1, 0), (0, 2)))(x)),
        "padded_and_strided": layers.Conv2D(2, 3, strides=2, padding="same")(layers.ZeroPadding2D(((1, 0), (0, 2)))(x)),
        "padded": layers.ZeroPadding2D(((1, 0), (0, 2)))(x),
        "padded_for_pooling": layers.MaxPooling2D(2)(layers.ZeroPadding2D(1)(x)),
    }


@cache
def network(*, fixed: bool) -> Any:
    inputs = keras.Input((13, 10, CHANNELS) if fixed else (None, None, CHANNELS))
    # Values on both sides of every bend: 3 and 6 matter for the hard activations.
    x = layers.Rescaling(3.0, name="wide")(inputs)
    rows = {**ANY_SIZE, **FIXED_SIZE} if fixed else ANY_SIZE
    outputs = {name: make()(x) for name, make in rows.items()} | several_inputs(x)
    return trained_like(keras.Model(inputs, outputs, name="every_layer"))


@pytest.mark.parametrize("name", GENERAL)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed size", "open size"])
def test_every_layer(name: str, fixed: bool, tmp_path: Path) -> None:
    model = network(fixed=fixed)
    runner = load_runner(write(model, tmp_path, name).path)
    for height, width in [(13, 10)] if fixed else [(12, 10), (13, 9)]:
        images = random_images((3, height, width, CHANNELS))
        expected, received = infer(model, images), runner.outputs(images)
        assert set(received) == set(expected)
        wrong = {}
        for output, values in expected.items():
            assert received[output].shape == values.shape, output
            error = relative_error(values, received[output])
            if error > TOLERANCES["float32"]:
                wrong[output] = error
        assert wrong == {}
