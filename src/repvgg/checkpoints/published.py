"""From the files of a repository to a Keras model: weights, and what `config.json` says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from repvgg.base.errors import CheckpointError
from repvgg.checkpoints.checkpoint import Checkpoint, read_checkpoint
from repvgg.checkpoints.hub_config import HubConfig
from repvgg.checkpoints.loading import AS_IN_FILE, build_model
from repvgg.conversion import reparameterize
from repvgg.core.architecture import PUBLISHED
from repvgg.models.metadata import set_metadata
from repvgg.models.variants import VARIANTS, as_deployed


def load_published(
    weights: Path,
    config: HubConfig,
    source: str,
    *,
    num_classes: int | str | None = AS_IN_FILE,
    input_shape: Sequence[int | None] | None = None,
    deploy: bool = False,
    dtype: Any = None,
    changes: Mapping[str, Any] | None = None,
) -> Any:
    """The network that was published, with its class names and preprocessing, in the form in which it was.

    Args:
        weights: the file, read as any other checkpoint is.
        config: what lies beside it.
        source: where they come from, in words.
        num_classes, input_shape, dtype: as for `load_checkpoint`.
        deploy: the plain stack, whatever was published.
        changes: strides, dilation and epsilon that are to be others than the published ones, by name.

    Raises:
        CheckpointError: if the file is damaged, or the two contradict each other.
    """
    checkpoint = read_checkpoint(weights)
    _require_same(config, checkpoint, source)
    metadata = replace(
        checkpoint.metadata,
        variant=config.variant or config.weights_of,
        class_names=config.class_names,
        preprocessing=config.preprocessing,
        source=source,
    )
    model = build_model(
        replace(checkpoint, metadata=metadata, source=source),
        num_classes=num_classes,
        dtype=dtype,
        input_shape=input_shape,
        adaptation=config.adaptation.changed(**(changes or {})),
    )
    if checkpoint.network.form == "deploy" or not (deploy or config.form == "deploy"):
        return model
    deployed = reparameterize(model)
    set_metadata(deployed, variant=metadata.variant)
    return deployed


def _require_same(config: HubConfig, checkpoint: Checkpoint, source: str) -> None:
    """Raises `CheckpointError` if the weights are not those of the network that the file beside them tells of."""
    network = checkpoint.network
    found = replace(network.architecture, adaptation=PUBLISHED)
    expected = VARIANTS[config.weights_of].architecture if config.weights_of is not None else found
    if network.form == "deploy":
        found, expected = as_deployed(found), as_deployed(expected)
    preprocessing = config.preprocessing
    if preprocessing is not None and preprocessing.channels != network.in_channels:
        raise CheckpointError(
            f"{source} prepares images of {preprocessing.channels} channels, and its network takes "
            f"{network.in_channels}."
        )
    if found != expected or network.num_classes != config.num_classes:
        theirs = network.variant.name if network.variant is not None else "a network without a name"
        raise CheckpointError(
            f"{source} says that its weights are those of {config.weights_of or 'a RepVGG'} with "
            f"{config.num_classes} classes, and they are those of {theirs} with {network.num_classes or 'no'} classes."
        )
