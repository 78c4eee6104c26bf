"""A checkpoint file, read and understood; no model is built here, and Keras is not imported."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from repvgg.base.errors import CheckpointError
from repvgg.base.metadata import Metadata
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.errors import shown
from repvgg.checkpoints.infer import Inferred, infer
from repvgg.checkpoints.inserted_norms import fold_inserted_norms
from repvgg.checkpoints.mapped import drop_pages
from repvgg.checkpoints.parts import find_part, listed
from repvgg.checkpoints.tensor_files import TensorFile, read_tensors
from repvgg.checkpoints.torch_format.reader import naming
from repvgg.core.architecture import EPSILON

_logger = logging.getLogger("repvgg")

_FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class Checkpoint:
    """A network's tensors by canonical name, and the network they were found to be.

    Attributes:
        tensors: PyTorch's layout. All of `network.shapes()` and no other; whoever builds a model may take them out.
        network: what they are.
        source: where they come from, in words.
        metadata: what came along with them.
        dialect: the names it had them under; "keras" for the tensors of a Keras model.
        prefix: what was taken off all names, such as `backbone.`.
        left: what stood beside the network and was not taken, by name, with the number of tensors.
    """

    tensors: dict[str, npt.NDArray[Any]]
    network: Inferred
    source: str
    metadata: Metadata
    dialect: str
    prefix: str = ""
    left: Mapping[str, int] = field(default_factory=dict)

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The element types of the tensors, widest first."""
        found = {tensor.dtype.name for tensor in self.tensors.values()}
        return tuple(name for name in _FLOATS if name in found)


def read_checkpoint(
    path: str | Path, *, entry: str | None = None, prefix: str | None = None, epsilon: float = EPSILON
) -> Checkpoint:
    """Reads a torch or safetensors file of any dialect and form.

    Args:
        path: the file; its kind is told from its content.
        entry: the entry of a torch file to take the weights from, such as "model_ema"; the usual one if None.
        prefix: takes the part whose names begin so, such as "backbone."; if None everything must belong to the network.
        epsilon: of batch normalizations that are folded on the way in (`repvgg.checkpoints.inserted_norms`).

    Raises:
        FileError: if there is no such file.
        CheckpointError: if it is damaged or unsafe, or its tensors are not exactly those of a RepVGG; the message lists
            every name that is missing, too much or of a wrong shape.
    """
    return understand(read_tensors(Path(path), entry=entry), Path(path), prefix=prefix, epsilon=epsilon)


def understand(file: TensorFile, path: Path, *, prefix: str | None = None, epsilon: float = EPSILON) -> Checkpoint:
    """What the tensors of a file are; they move from `file` to the result.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    with naming(path):
        inserted = fold_inserted_norms(file.tensors, epsilon)
        # What all names of the file begin with is off already, and whoever names a prefix may have seen it there.
        part = find_part(file.tensors, None if prefix is None else prefix.removeprefix(file.prefix))
        dialect = part.dialect
        spelled = {spelling: file.tensors[name] for name, spelling in part.names.items()}
        canonical = dialect.to_canonical(spelled)
        tensors = {canonical[name]: tensor for name, tensor in spelled.items() if name in canonical}
        network = infer({name: tensor.shape for name, tensor in tensors.items()}, dialect.blocks)
        _require_complete(spelled, canonical, network, dialect)
        _require_floats(spelled)
    # From here on `tensors` alone holds the arrays, so that those already copied into a model can be let go.
    file.tensors.clear()
    spelled.clear()
    drop_pages(next(iter(tensors.values())))  # the reader has looked at every page, for the checksums
    variant = network.variant
    under = f" under '{part.prefix}'" if part.prefix else ""
    folded = f", {inserted} batch normalizations folded" if inserted else ""
    source = f"{path.name} ({dialect.name} names{under}, {network.form} form{folded})"
    if part.left:
        _logger.warning("%s: left beside '%s': %s.", path.name, part.prefix, listed(part.left))
    metadata = Metadata(variant=variant.name if variant else None, form=network.form, source=source)
    return Checkpoint(tensors, network, source, metadata, dialect.name, file.prefix + part.prefix, part.left)


def _require_complete(
    tensors: Mapping[str, npt.NDArray[Any]], canonical: Mapping[str, str], network: Inferred, dialect: Dialect
) -> None:
    expected = network.shapes()
    theirs = dialect.from_canonical(expected)
    # There and back, so that of two names for one tensor, or of halves cut elsewhere, none is taken for granted.
    unused = [name for name in tensors if theirs.get(canonical.get(name, "")) != name]
    missing = [theirs[name] for name in expected if theirs[name] not in tensors]
    misshapen = [
        f"{name} {tensors[name].shape} instead of {expected[canonical[name]]}"
        for name in tensors
        if name not in unused and tensors[name].shape != expected[canonical[name]]
    ]
    findings = (
        _listing("it has tensors that the network has no place for", unused),
        _listing("the network needs tensors that it lacks", missing),
        _listing("tensors have the wrong shape", misshapen),
    )
    if any(findings):
        architecture = network.architecture
        widths: tuple[int, ...] = architecture.stage_widths
        raise CheckpointError(
            f"It was taken for a RepVGG in {network.form} form with {architecture.num_blocks} blocks of {widths} "
            f"channels after a stem of {architecture.stem_width}, named as {dialect.name} names it, but"
            f"{';'.join(filter(None, findings))}."
        )


def _listing(what: str, names: Iterable[str]) -> str:
    listed = ", ".join(shown(name) for name in names)
    return f" {what}: {listed}" if listed else ""


def _require_floats(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    others = [f"{shown(name)} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype.name not in _FLOATS]
    if others:
        raise CheckpointError(
            f"Its weights should be numbers of one of the types {', '.join(_FLOATS)}, and these are not: "
            f"{', '.join(others)}. Is it a quantized network? Take the checkpoint it was made from."
        )
