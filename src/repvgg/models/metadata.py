"""The metadata of a Keras model."""

from dataclasses import replace
from typing import Any

from repvgg.base.metadata import Metadata
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.models.layers import all_layers


def get_metadata(model: Any) -> Metadata:
    """The metadata attached to a Keras model.

    One that has none, such as a model that Keras alone saved and loaded, is of the form that its layers show.
    """
    metadata = attached_metadata(model)
    if metadata is not None:
        return metadata
    blocks = (layer for layer in all_layers(model) if isinstance(layer, ReparameterizableBlock))
    return Metadata(form="training" if any(not block.deploy for block in blocks) else "deploy")


def attached_metadata(model: Any) -> Metadata | None:
    """What was attached to it and nothing else."""
    metadata = getattr(model, "repvgg_metadata", None)
    return metadata if isinstance(metadata, Metadata) else None


def set_metadata(model: Any, metadata: Metadata | None = None, **changes: Any) -> None:
    """Attaches `metadata` to a Keras model, or changes single fields of what it has.

    Example:
        >>> set_metadata(model, class_names=("daisy", "rose"))
    """
    model.repvgg_metadata = replace(metadata or get_metadata(model), **changes)
