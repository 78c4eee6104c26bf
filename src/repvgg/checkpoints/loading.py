"""From a checkpoint file to a Keras model."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from repvgg.base.errors import CheckpointError, InputError
from repvgg.base.metadata import Form
from repvgg.checkpoints.branch_expansion import expand_branches
from repvgg.checkpoints.canonical import AUXILIARY, CLASSIFIER, of_linear_layer
from repvgg.checkpoints.checkpoint import Checkpoint, read_checkpoint
from repvgg.checkpoints.infer import Inferred, infer, named_variant
from repvgg.checkpoints.weights import fill, slots_of
from repvgg.core.architecture import PUBLISHED, Adaptation
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.model import build_described
from repvgg.models.recover import recover
from repvgg.models.saving import load_model
from repvgg.models.variants import as_trained

AS_IN_FILE: Final = "as in the file"
"""For `num_classes`, where None already means a network without classifier."""

_logger = logging.getLogger("repvgg")


def load_checkpoint(
    path: str | Path,
    *,
    num_classes: int | None = None,
    form: Form | None = None,
    from_deploy: Literal["expand"] | None = None,
    dtype: Any = None,
    input_shape: Sequence[int | None] | None = None,
    entry: str | None = None,
    prefix: str | None = None,
    stem_strides: int | None = None,
    output_stride: int | None = None,
    dilate_first: bool | None = None,
    epsilon: float | None = None,
) -> Any:
    """A Keras model from a checkpoint of the official repository, timm or mmpretrain, or from a `.keras` file.

    The architecture, whatever its depths and widths, is told from names and shapes. PyTorch is not needed, and nothing
    that a file brings with it is run.

    Args:
        path: `.pth`, `.pt`, `.bin`, `.safetensors` or `.keras`; except for the last, the content decides.
        num_classes: outputs of the model; those of the file if None. Another number gives it a new classifier with
            fresh weights, which is logged as a warning and noted in the model's metadata.
        form: "training" or "deploy"; the file's form if None.
        from_deploy: "expand" turns a deploy-form file into a training form, and leaves one that is in training form
            alone. In inference mode it computes the same function: each block gets fresh 1x1 and identity branches, and
            a 3x3 branch that makes up for them (`branch_expansion.py`). `recalibrate_batch_norm` does the same for
            training mode, which needs images.
        dtype: Keras dtype policy. If None the current one, or "float64" for a file of that type: no digit is lost.
        input_shape: (height, width, channels); None stands for sides that may vary and the channels of the file.
        entry: the entry of a torch file to take the weights from, such as "model_ema".
        prefix: takes the part whose names begin so, such as "backbone." of a detector, and leaves the rest, which is
            logged as a warning. What all names begin with in common goes off by itself.
        stem_strides, output_stride, dilate_first, epsilon: as for `repvgg.RepVGG`. A state dict does not tell them, so
            they are the published ones (2, 32, 1e-5) if None: say them where the network was another. A `.keras` file
            has its own. `repvgg.verify_logits` compares the model with a few logits of the network it came from.

    Returns:
        A model as `repvgg.RepVGG` builds it; a deploy-form file gives stock Keras layers.

    Raises:
        FileError: if there is no such file.
        CheckpointError: if it is damaged, unsafe, no RepVGG, or of another form than the one asked for.

    Example:
        >>> model = load_checkpoint("RepVGG-A0-train.pth")  # doctest: +SKIP
        >>> repvgg.get_metadata(model).variant  # doctest: +SKIP
        'RepVGG-A0'
    """
    if from_deploy not in (None, "expand", "unfold"):  # the last is its former name
        raise InputError(f"`from_deploy` is None or 'expand'. Received: {from_deploy!r}.")
    if form not in (None, "training", "deploy"):
        raise InputError(f"`form` is None, 'training' or 'deploy'. Received: {form!r}.")
    adaptation = PUBLISHED.changed(stem_strides, output_stride, dilate_first, epsilon)
    if from_deploy and form == "deploy":
        raise InputError("from_deploy='expand' makes a training form, and form='deploy' was asked for. Leave out one.")
    if Path(path).suffix == ".keras":
        for name, value in (("entry", entry), ("prefix", prefix)):
            if value is not None:
                raise InputError(
                    f"`{name}` is about PyTorch's checkpoints, and '{path}' is a Keras file. Leave it out."
                )
        model = load_model(path)
        asked = (num_classes, form, from_deploy, dtype, input_shape, stem_strides, output_stride, dilate_first, epsilon)
        if all(option is None for option in asked):
            return model
        checkpoint = checkpoint_of(model, source=Path(path).name)
        adaptation = checkpoint.network.architecture.adaptation.changed(
            stem_strides, output_stride, dilate_first, epsilon
        )
    else:
        checkpoint = read_checkpoint(path, entry=entry, prefix=prefix, epsilon=adaptation.epsilon)
    return build_model(
        checkpoint,
        num_classes=AS_IN_FILE if num_classes is None else num_classes,
        form=form,
        from_deploy=from_deploy,
        dtype=dtype,
        input_shape=input_shape,
        adaptation=adaptation,
    )


def checkpoint_of(model: Any, *, source: str) -> Checkpoint:
    """The tensors of a Keras model as if they came from a file.

    Raises:
        InputError: if it is not a RepVGG that a checkpoint can hold.
    """
    recovered = recover(model)
    tensors = {name: slot.read() for name, slot in slots_of(recovered).items()}
    network = infer({name: tensor.shape for name, tensor in tensors.items()})
    network = network.adapted(recovered.architecture.adaptation)
    return Checkpoint(tensors, network, source, get_metadata(model), "keras")


def build_model(
    checkpoint: Checkpoint,
    *,
    num_classes: int | str | None = AS_IN_FILE,
    form: Form | None = None,
    from_deploy: Literal["expand"] | None = None,
    dtype: Any = None,
    input_shape: Sequence[int | None] | None = None,
    adaptation: Adaptation | None = None,
) -> Any:
    """`load_checkpoint` from a file that was already read; its tensors are used up.

    Args:
        num_classes: `AS_IN_FILE`, another number, or None for the features of all stages.
        adaptation: the checkpoint's if None.
    """
    network, tensors, source = checkpoint.network, checkpoint.tensors, checkpoint.source
    if adaptation is not None:
        network = network.adapted(adaptation)
    shape = _checked_input_shape(network, input_shape)
    _require_form(checkpoint, form, from_deploy)
    if num_classes == AS_IN_FILE:
        num_classes = network.num_classes
    elif isinstance(num_classes, str):
        raise InputError(f"`num_classes` must be a number or None. Received: {num_classes!r}.")
    expanding = from_deploy is not None and network.form == "deploy"
    result: Form = "training" if expanding else network.form
    new_head = num_classes not in (None, network.num_classes)
    if dtype is None and "float64" in checkpoint.dtypes:
        dtype = "float64"

    if expanding:
        tensors = expand_branches(tensors, network.architecture, network.in_channels)
        source += ", branches expanded"
    if num_classes is None:
        _remove(tensors, _of_head)
    elif new_head:
        _remove(tensors, of_linear_layer)
        text = f"new classifier of {num_classes} classes with fresh weights, for the file's of {network.num_classes}"
        source += f", {text}"
        _logger.warning("%s: %s.", checkpoint.source, text)

    architecture = network.architecture
    if result == "deploy":
        # What came with the file may know what the layers do not show.
        architecture = as_trained(architecture, checkpoint.metadata.variant)
    variant = named_variant(architecture)
    model = build_described(
        architecture,
        num_classes,
        shape,
        deploy=result == "deploy",
        dtype=dtype,
        name=variant.name.replace("-", "_").lower() if variant else None,
    )
    slots = slots_of(recover(model))
    if new_head:
        _remove(slots, of_linear_layer)
    fill(slots, tensors)
    same_classes = num_classes == network.num_classes
    set_metadata(
        model,
        replace(
            checkpoint.metadata,
            variant=variant.name if variant else None,
            form=result,
            class_names=checkpoint.metadata.class_names if same_classes else None,
            source=source,
            verification=None,
        ),
    )
    return model


def _require_form(checkpoint: Checkpoint, form: Form | None, from_deploy: str | None) -> None:
    found = checkpoint.network.form
    if form == "deploy" and found == "training":
        raise CheckpointError(
            f"{checkpoint.source} was asked for in deploy form. Load it as it is, then convert it: "
            "repvgg.reparameterize(repvgg.load_checkpoint(path))."
        )
    if form == "training" and found == "deploy" and from_deploy is None:
        raise CheckpointError(
            f"{checkpoint.source} was asked for in training form. The branches that make RepVGG train well are gone "
            "from it, and a plain network trains worse. Take the training-form file if there is one. If there is none, "
            "from_deploy='expand' makes new branches that compute the same function."
        )


def _checked_input_shape(network: Inferred, input_shape: Sequence[int | None] | None) -> tuple[int | None, ...]:
    if input_shape is None:
        return (None, None, network.in_channels)
    shape = tuple(input_shape)
    if len(shape) == 3 and shape[-1] != network.in_channels:
        raise CheckpointError(
            f"The file's network reads images of {network.in_channels} channels, and `input_shape` says {shape[-1]}. "
            f"Use input_shape={(*shape[:-1], network.in_channels)}."
        )
    return shape


def _of_head(name: str) -> bool:
    return name.startswith((f"{CLASSIFIER}.", *(f"{head}." for head in AUXILIARY)))


def _remove(table: dict[str, Any], unwanted: Callable[[str], bool]) -> None:
    # In place: whatever still held the arrays would keep them in memory.
    for name in [name for name in table if unwanted(name)]:
        del table[name]
