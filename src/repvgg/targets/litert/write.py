"""LiteRT, formerly TensorFlow Lite: one `.tflite` file, for phones and small boards."""

import zipfile
from pathlib import Path
from typing import Any

from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.litert.run import METADATA_MEMBER
from repvgg.targets.operations import FLOAT16
from repvgg.targets.tensorflow_graph import build


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    import tensorflow as tf

    converter = converter_for(model, settings)
    if settings.precision == FLOAT16:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    append_metadata(path, metadata)


def converter_for(model: Any, settings: Settings) -> Any:
    """A `tf.lite.TFLiteConverter` of the model, with nothing set."""
    import tensorflow as tf

    module, function = build(model, settings, "LiteRT")
    return tf.lite.TFLiteConverter.from_concrete_functions([function], module)


def append_metadata(path: Path, metadata: Metadata) -> None:
    """Adds the metadata the way TensorFlow Lite's own metadata keep their files: as a zip archive behind the model.

    A reader of the model, which is found from the front, does not see it.
    """
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(METADATA_MEMBER, metadata.to_json())
