"""TensorFlow's SavedModel: a folder with one signature, `serving_default`, and nothing that trains."""

from pathlib import Path
from typing import Any

from repvgg.base.metadata import Metadata
from repvgg.targets import Settings
from repvgg.targets.savedmodel.run import METADATA_FILE, SIGNATURE
from repvgg.targets.tensorflow_graph import build


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes a functional model of stock layers as the folder `path`.

    Raises:
        InputError: if a layer has no counterpart here; the message names it.
    """
    import tensorflow as tf

    module, function = build(model, settings, "SavedModel")
    tf.saved_model.save(module, str(path), signatures={SIGNATURE: function})
    # "assets.extra" is where TensorFlow lets others keep files of theirs.
    extra = path / METADATA_FILE
    extra.parent.mkdir()
    extra.write_text(metadata.to_json(), encoding="utf-8")
