"""Plain Keras: the deploy form in a `.keras` file."""

from pathlib import Path
from typing import Any

from repvgg.exporters import Settings
from repvgg.metadata import Metadata, set_metadata
from repvgg.saving import save_model


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes the deploy form of a network; any Keras 3 reads it, without this package."""
    set_metadata(model, metadata)
    save_model(model, path)
