"""Plain Keras: the deploy form in a `.keras` file."""

from pathlib import Path
from typing import Any

from repvgg.base.metadata import Metadata
from repvgg.models.metadata import set_metadata
from repvgg.models.saving import save_model
from repvgg.targets import Settings


def write(model: Any, path: Path, metadata: Metadata, settings: Settings) -> None:
    """Writes the deploy form of a network; any Keras 3 reads it, without this package."""
    set_metadata(model, metadata)
    save_model(model, path)
