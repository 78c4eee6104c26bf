"""Models by name, and the weights to fill them with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from repvgg.base.errors import CheckpointError, FileError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.checkpoints import hub
from repvgg.checkpoints.checkpoint import Checkpoint, read_checkpoint
from repvgg.checkpoints.loading import AS_IN_FILE, build_model, checkpoint_of
from repvgg.checkpoints.published import load_published
from repvgg.checkpoints.repository import Repository, is_repository, parse_repository
from repvgg.conversion import reparameterize
from repvgg.core.architecture import PAPERS_BLOCK, PUBLISHED, Architecture
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.model import build_described
from repvgg.models.saving import load_model, load_weights
from repvgg.models.variants import Variant, as_trained, get_variant

IMAGENET = "imagenet"
AS_PUBLISHED: Final = "as published"
"""For `num_classes`, where None means a network without classifier: ImageNet's 1000, or those of a repository."""


def create_model(
    variant_name: str,
    num_classes: int | Literal["as published"] | None = AS_PUBLISHED,
    input_shape: Sequence[int | None] | None = None,
    deploy: bool = False,
    weights: str | Path | None = None,
    *,
    stem_strides: int | None = None,
    output_stride: int | None = None,
    dilate_first: bool | None = None,
    epsilon: float | None = None,
    dtype: Any = None,
) -> Any:
    """A network by name.

    Args:
        variant_name: one of `repvgg.list_variants()`; or "hf-hub:user/name", or "hf-hub:user/name@revision", for what
            `repvgg.push` or timm published on the Hugging Face hub, with its class names and preprocessing.
        num_classes, input_shape, deploy, dtype: as for `RepVGG`, and what a repository holds if not given. If the
            weights have another number of classes, the classifier is a fresh one, which is logged as a warning;
            everything else is theirs.
        weights: None for fresh ones; "imagenet" for those the authors trained, from the Hugging Face hub, with their
            preprocessing and class names; or a file: `.pth`, `.safetensors`, `.keras` or `.weights.h5`. Weights in
            training form serve both forms: with deploy=True they are converted.
        stem_strides, output_stride, dilate_first, epsilon: as for `RepVGG`, and any weights serve all of them. If None
            the published ones (2, 32, 1e-5), or those of a `.keras` file.

    Raises:
        UnknownNameError: if there is no such variant; the message names the nearest ones.
        FileError: if the weights or the repository cannot be read or do not fit.

    Example:
        >>> model = create_model("RepVGG-A0", num_classes=5)
        >>> model = create_model("RepVGG-A0", weights="imagenet")  # doctest: +SKIP
        >>> model = create_model("hf-hub:timm/repvgg_a0.rvgg_in1k")  # doctest: +SKIP
    """
    changes: dict[str, Any] = {
        "stem_strides": stem_strides,
        "output_stride": output_stride,
        "dilate_first": dilate_first,
        "epsilon": epsilon,
    }
    if is_repository(variant_name):
        if weights is not None:
            raise InputError(f"'{variant_name}' brings its own weights. Leave out `weights`.")
        classes = AS_IN_FILE if num_classes == AS_PUBLISHED else num_classes
        return _from_repository(parse_repository(variant_name), classes, input_shape, deploy, dtype, changes)
    variant = get_variant(variant_name)
    num_classes = 1000 if num_classes == AS_PUBLISHED else num_classes
    input_shape = (None, None, 3) if input_shape is None else input_shape
    architecture = replace(variant.architecture, adaptation=PUBLISHED.changed(**changes))
    if weights is None:
        return build_described(architecture, num_classes, input_shape, deploy=deploy, dtype=dtype)
    if weights == IMAGENET:
        return _pretrained(variant, num_classes, input_shape, deploy, dtype, changes)
    path = Path(weights)
    if path.name.endswith(".weights.h5"):
        model = build_described(architecture, num_classes, input_shape, deploy=deploy, dtype=dtype)
        load_weights(model, path)
        return model
    checkpoint = _read(path, architecture.adaptation.epsilon)
    return _from_checkpoint(checkpoint, variant, num_classes, input_shape, deploy, dtype, changes)


def _from_repository(
    repository: Repository,
    num_classes: int | str | None,
    input_shape: Sequence[int | None] | None,
    deploy: bool,
    dtype: Any,
    changes: Mapping[str, Any],
) -> Any:
    weights, config = hub.fetch_repository(repository)
    return load_published(
        weights,
        config,
        str(repository),
        num_classes=num_classes,
        input_shape=input_shape,
        deploy=deploy,
        dtype=dtype,
        changes=changes,
    )


def _pretrained(
    variant: Variant,
    num_classes: int | None,
    input_shape: Sequence[int | None],
    deploy: bool,
    dtype: Any,
    changes: Mapping[str, Any],
) -> Any:
    checkpoint = read_checkpoint(hub.fetch(variant.name))
    checkpoint = replace(checkpoint, source=f"{hub.PRETRAINED[variant.name]} on the Hugging Face hub")
    same_classes = num_classes == checkpoint.network.num_classes
    model = _from_checkpoint(checkpoint, variant, num_classes, input_shape, deploy, dtype, changes)
    set_metadata(
        model,
        preprocessing=_preprocessing(variant, input_shape),
        class_names=hub.imagenet_class_names() if same_classes else None,
    )
    return model


def _preprocessing(variant: Variant, input_shape: Sequence[int | None]) -> Preprocessing:
    """As the published accuracies were measured: at 224 px a crop of the 256 px image, at 320 px no crop."""
    height, width = tuple(input_shape)[:2]
    size = height if height is not None and height == width else variant.image_size
    return Preprocessing(crop=size, resize=size if variant.image_size > 224 else round(size * 256 / 224))


def _read(path: Path, epsilon: float) -> Checkpoint:
    if not path.exists():
        raise FileError(f"There is no weights file '{path}'. `weights` is None, '{IMAGENET}' or a file.")
    if path.suffix == ".keras":
        return checkpoint_of(load_model(path), source=path.name)
    return read_checkpoint(path, epsilon=epsilon)


def _from_checkpoint(
    checkpoint: Checkpoint,
    variant: Variant,
    num_classes: int | None,
    input_shape: Sequence[int | None],
    deploy: bool,
    dtype: Any,
    changes: Mapping[str, Any],
) -> Any:
    adaptation = checkpoint.network.architecture.adaptation.changed(**changes)
    checkpoint = replace(checkpoint, network=checkpoint.network.adapted(PUBLISHED))
    form = checkpoint.network.form
    expected, found = variant.architecture, checkpoint.network.architecture
    if form == "deploy" or deploy:
        # Auxiliary classifiers have no part in the deploy form.
        expected, found = (replace(architecture, auxiliary_heads=False) for architecture in (expected, found))
    if form == "deploy":
        # The kind of block does not show in it. A Keras file may say what it was; of others the caller's word is taken.
        said = checkpoint.metadata.variant if checkpoint.dialect == "keras" else None
        found = as_trained(found, said or variant.name)
        checkpoint = replace(checkpoint, network=replace(checkpoint.network, architecture=found))
    if expected != found:
        raise CheckpointError(
            f"The weights in {checkpoint.source} are not those of {variant.name}. Expected {_in_words(expected)}; "
            f"found {_in_words(found)}{_called(checkpoint)}. repvgg.load_checkpoint loads them as what they are."
        )
    model = build_model(
        checkpoint,
        num_classes=num_classes,
        form="deploy" if form == "deploy" and deploy else "training",
        dtype=dtype,
        input_shape=input_shape,
        adaptation=adaptation,
    )
    if not deploy or form == "deploy":
        return model
    source = get_metadata(model).source
    deployed = reparameterize(model)
    set_metadata(deployed, source=f"{source}, converted")
    return deployed


def _called(checkpoint: Checkpoint) -> str:
    variant = checkpoint.network.variant
    return f", which is {variant.name}" if variant else ""


def _in_words(architecture: Architecture) -> str:
    parts = [
        f"{'-'.join(map(str, architecture.num_blocks))} blocks",
        f"{'-'.join(map(str, architecture.stage_widths))} channels",
    ]
    groups = sorted(set(architecture.groups.values()))
    if groups:
        parts.append(f"{'/'.join(map(str, groups))} groups in {len(architecture.groups)} blocks")
    if architecture.squeeze_excite:
        attention = architecture.squeeze_excite
        parts.append(f"attention {attention.position.replace('_', ' ')} with 1/{attention.reduction} of the channels")
    if architecture.auxiliary_heads:
        parts.append("auxiliary classifiers")
    if architecture.separable:
        parts.append("depthwise and pointwise blocks in turn")
    if architecture.copies > 1:
        parts.append(f"{architecture.copies} copies of a branch")
    if architecture.block != PAPERS_BLOCK:
        parts.append(f"made of {architecture.block}s")
    return ", ".join(parts)
