"""Models in files, with everything they carry.

A `.keras` file of ours is an ordinary Keras file with one more member in its zip archive, `repvgg.json`; Keras itself
reads it as ever.
"""

import zipfile
from pathlib import Path
from typing import Any

import keras

from repvgg.base.errors import FileError, InputError
from repvgg.base.files import atomic_output, refuse_existing, require_file
from repvgg.base.metadata import Metadata
from repvgg.models.metadata import get_metadata, set_metadata

_MEMBER = "repvgg.json"


def save_model(model: Any, path: str | Path, *, force: bool = False) -> Path:
    """Writes a Keras model with its class names, preprocessing and origin.

    Args:
        path: ends in `.keras`.
        force: replace a file that is there.

    Raises:
        OutputExistsError: if the file exists and `force` is not set.
        InputError: if the name does not end in `.keras`.
    """
    path = Path(path)
    if path.suffix != ".keras":
        raise InputError(f"A Keras model is saved as '.keras'. Received: '{path.name}'.")
    refuse_existing(path, force=force)
    with atomic_output(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(_MEMBER, get_metadata(model).to_json())
    return path


def load_model(path: str | Path) -> Any:
    """Reads a `.keras` file; its metadata, if it has any, come with the model.

    Raises:
        FileError: if it is missing, truncated or not a Keras file.
    """
    path = Path(path)
    require_file(path, what="model")
    metadata = read_metadata(path)
    try:
        model = keras.saving.load_model(path)
    except InputError:
        raise
    except Exception as error:
        raise FileError(f"'{path}' is a Keras file that cannot be loaded: {_first_line(error)}") from error
    set_metadata(model, metadata or get_metadata(model))
    return model


def read_metadata(path: Path) -> Metadata | None:
    """The metadata in a `.keras` file, without building the model; None if Keras alone wrote it.

    Raises:
        FileError: if the file is not an intact zip archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            if damaged is not None:
                raise FileError(
                    f"'{path}' is damaged: its part '{damaged}' does not match its checksum. Copy it again."
                )
            names = archive.namelist()
            if "config.json" not in names:
                raise FileError(f"'{path}' is a zip archive, but not a Keras model: it has no 'config.json'.")
            return Metadata.from_json(archive.read(_MEMBER).decode()) if _MEMBER in names else None
    except zipfile.BadZipFile as error:
        raise FileError(
            f"'{path}' is not a Keras model, or a truncated one ({error}). A '.keras' file is a zip archive."
        ) from error


def load_weights(model: Any, path: Path) -> None:
    """Fills `model` from a `.keras` or `.weights.h5` file; every weight must fit, or none is touched.

    Raises:
        FileError: if the file is missing, unreadable or made by another architecture.
    """
    require_file(path, what="weights file")
    if not path.name.endswith((".keras", ".weights.h5")):
        raise FileError(f"Weights come from a '.keras' or '.weights.h5' file. Received: '{path.name}'.")
    before = model.get_weights()
    try:
        model.load_weights(path)
    except Exception as error:
        model.set_weights(before)
        raise FileError(f"The weights in '{path}' do not fit this model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
