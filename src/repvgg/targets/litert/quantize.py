"""LiteRT in full INT8: weights and activations of 8 bits, by TensorFlow's converter.

Images and answers are in float32, or integers themselves for processors that have nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from repvgg.base.metadata import Metadata
from repvgg.base.quiet import quiet_libraries
from repvgg.quantization.schemes import Scheme
from repvgg.quantization.steps import whole_batches
from repvgg.targets import Settings
from repvgg.targets.litert.ends import require_integers, with_ends
from repvgg.targets.litert.write import append_metadata, converter_for


def quantize(model: Any, images: np.ndarray, scheme: Scheme, float_layers: Sequence[str], settings: Settings) -> bytes:
    """The model as a `.tflite` file's content, with 8-bit weights and activations (both signed).

    Raises:
        ValueError: for layers in float32, which the converter has no stable way to leave out.
        InputError: with integer ends, if a layer has no integer kernel.
    """
    import tensorflow as tf

    if float_layers:
        raise ValueError("LiteRT's converter quantizes all layers.")
    size = settings.batch or model.inputs[0].shape[0] or 1

    def examples() -> Iterator[list[np.ndarray]]:
        for part in whole_batches(images, size):
            yield [part]

    converter = converter_for(model, replace(settings, softmax=False, preprocessing=None))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = examples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    if not scheme.per_channel:
        # There is no public way to ask for one grid a layer, which nobody wants but to see what it costs.
        converter._experimental_disable_per_channel = True
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    if settings.integer_io is not None:
        converter.inference_input_type = converter.inference_output_type = getattr(tf, settings.integer_io)
    with quiet_libraries():
        converted: bytes = converter.convert()
    if settings.integer_io is not None:
        require_integers(converted)
    return with_ends(converted, settings)


def save(artifact: bytes, path: Path, metadata: Metadata) -> None:
    """Writes `path`."""
    path.write_bytes(artifact)
    append_metadata(path, metadata)
