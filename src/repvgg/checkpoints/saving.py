"""From a Keras model to a checkpoint file that PyTorch's implementations read."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from repvgg.base.errors import InputError
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.checkpoints.canonical import canonical_shapes, counter_after
from repvgg.checkpoints.dialects import dialect_to_write
from repvgg.checkpoints.torch_format.writer import write_torch
from repvgg.checkpoints.weights import slots_of
from repvgg.core.architecture import EPSILON
from repvgg.models.layers import require_float_weights
from repvgg.models.recover import Recovered, recover

_logger = logging.getLogger("repvgg")

TORCH_SUFFIXES = (".pth", ".pt", ".bin")
SAFETENSORS_SUFFIX = ".safetensors"


def save_checkpoint(
    model: Any, path: str | Path, dialect: str = "official", *, epsilon: float | None = None, force: bool = False
) -> Path:
    """Writes a model as a state dict of PyTorch; `torch.load(path, weights_only=True)` reads it.

    Every number is written as it is, in the type of the model's variables. A training form also gets the batch counters
    that a strict `load_state_dict` asks for, set to 0.

    Args:
        model: a network of this package in either form.
        path: ends in `.pth`, `.pt`, `.bin` or `.safetensors`.
        dialect: whose names: "official", "timm" or "mmpretrain". RepVGGplus exists in the official repository only,
            whose `repvggplus.py` has names of its own; "official" picks them where they are needed.
        epsilon: of the batch normalizations in the program that will read the file, which the file does not say. If it
            is not the model's own, the running variances carry the difference, and inference is exactly the same. None
            stands for 1e-5, and is refused for a training form with another epsilon.
        force: replace a file that is there.

    Raises:
        InputError: if the suffix is another, or the dialect has no such model.
        UnknownNameError: if there is no such dialect.
        OutputExistsError: if the file exists and `force` is not set.

    Example:
        >>> save_checkpoint(model, "a0.safetensors", dialect="timm")  # doctest: +SKIP
    """
    path = Path(path)
    if path.suffix not in (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX):
        raise InputError(
            f"A checkpoint is saved as {', '.join(TORCH_SUFFIXES)} or {SAFETENSORS_SUFFIX}. Received: '{path.name}'."
        )
    refuse_existing(path, force=force)
    tensors = state_dict(model, dialect, epsilon)
    _tell_what_is_missing(model)
    if path.suffix == SAFETENSORS_SUFFIX:
        write_safetensors(tensors, path)
    else:
        write_torch(tensors, path)
    return path


def write_safetensors(tensors: dict[str, npt.NDArray[Any]], path: Path) -> None:
    """Writes a state dict, whole or not at all."""
    with atomic_output(path) as temporary:
        # timm and others refuse a file that does not say which framework it is for.
        save_file(tensors, temporary, metadata={"format": "pt"})


def state_dict(model: Any, dialect: str = "official", epsilon: float | None = None) -> dict[str, npt.NDArray[Any]]:
    """The tensors that `save_checkpoint` writes, in PyTorch's layout and order."""
    require_float_weights(model)
    recovered = recover(model)
    added = _added_to_variances(recovered, epsilon)
    target = dialect_to_write(dialect, recovered.architecture)
    if recovered.form == "training" and recovered.architecture.block not in target.blocks:
        raise InputError(
            f"'{model.name}' consists of {recovered.architecture.block}s, whose training form PyTorch's RepVGG lacks. "
            "Save it as .keras with repvgg.save_model, or convert it first with repvgg.reparameterize (--deploy): the "
            "deploy form is the same for all."
        )
    slots = slots_of(recovered)
    # The table of shapes knows PyTorch's order; it asks for no tensor that the model does not have.
    shapes = canonical_shapes(recovered.architecture, recovered.form, recovered.in_channels, recovered.num_classes)
    names = [name for name in shapes if name in slots]
    if len(names) != len(slots):
        raise InputError(f"The model has weights that no checkpoint has: {', '.join(sorted(set(slots) - set(names)))}.")
    spelled = target.from_canonical(names)
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name in names:
        tensors[spelled[name]] = _shifted(name, slots[name].read(), added)
        counter = counter_after(spelled[name])
        if counter is not None:
            tensors[counter] = np.zeros((), np.int64)
    return tensors


def _added_to_variances(network: Recovered, epsilon: float | None) -> float:
    """What makes up for another epsilon: gamma / sqrt(variance + epsilon) is all that a normalization knows of both."""
    own = network.architecture.adaptation.epsilon
    if network.form == "deploy":
        if epsilon is not None:
            raise InputError("`epsilon` is about batch normalizations, and a deploy form has none. Leave it out.")
        return 0.0
    if epsilon is None and own != EPSILON:
        # PyTorch keeps it in the program and not in the file: the reader would take its own for ours.
        raise InputError(
            f"The network's batch normalizations have an epsilon of {own}, and a checkpoint does not say so. Pass "
            f"epsilon={own} if the program that will read it has that too, or epsilon={EPSILON} for one that has "
            "PyTorch's default; the variances then make up for the difference."
        )
    return 0.0 if epsilon is None else own - epsilon


def _shifted(name: str, values: npt.NDArray[Any], added: float) -> npt.NDArray[Any]:
    if not added or not name.endswith(".running_var"):
        return values
    shifted = values.astype(np.float64) + added
    if not shifted.min() >= 0:
        raise InputError(
            f"'{name}' has variances down to {values.min():.1e}, which cannot make up for an epsilon that is larger by "
            f"{-added:.1e}. Convert the model with repvgg.reparameterize (--deploy): the deploy form has no epsilon."
        )
    return shifted.astype(values.dtype)


def _tell_what_is_missing(model: Any) -> None:
    unsaid = recover(model).architecture.adaptation.unsaid()
    if unsaid:
        _logger.warning("A checkpoint does not tell %s: whoever loads it has to say so again.", unsaid)
