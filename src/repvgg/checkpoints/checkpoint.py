"""A checkpoint file, read and understood; no model is built here, and Keras is not imported."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from repvgg.base.errors import CheckpointError
from repvgg.base.metadata import Metadata
from repvgg.checkpoints.dialects import detect_dialect
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.errors import shown
from repvgg.checkpoints.infer import Inferred, infer
from repvgg.checkpoints.mapped import drop_pages
from repvgg.checkpoints.tensor_files import TensorFile, read_tensors
from repvgg.checkpoints.torch_format.reader import naming

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
    """

    tensors: dict[str, npt.NDArray[Any]]
    network: Inferred
    source: str
    metadata: Metadata
    dialect: str

    @property
    def dtypes(self) -> tuple[str, ...]:
        """The element types of the tensors, widest first."""
        found = {tensor.dtype.name for tensor in self.tensors.values()}
        return tuple(name for name in _FLOATS if name in found)


def read_checkpoint(path: str | Path, *, entry: str | None = None) -> Checkpoint:
    """Reads a torch or safetensors file of any dialect and form.

    Args:
        path: the file; its kind is told from its content.
        entry: the entry of a torch file to take the weights from, such as "model_ema"; the usual one if None.

    Raises:
        FileError: if there is no such file.
        CheckpointError: if it is damaged or unsafe, or its tensors are not exactly those of a RepVGG; the message lists
            every name that is missing, too much or of a wrong shape.
    """
    return understand(read_tensors(Path(path), entry=entry), Path(path))


def understand(file: TensorFile, path: Path) -> Checkpoint:
    """What the tensors of a file are; they move from `file` to the result.

    Raises:
        CheckpointError: as `read_checkpoint`.
    """
    with naming(path):
        dialect = detect_dialect(file.tensors)
        canonical = dialect.to_canonical(file.tensors)
        tensors = {canonical[name]: tensor for name, tensor in file.tensors.items() if name in canonical}
        network = infer({name: tensor.shape for name, tensor in tensors.items()}, dialect.blocks)
        _require_complete(file.tensors, canonical, network, dialect)
        _require_floats(file.tensors)
    # From here on `tensors` alone holds the arrays, so that those already copied into a model can be let go.
    file.tensors.clear()
    drop_pages(next(iter(tensors.values())))  # the reader has looked at every page, for the checksums
    variant = network.variant
    source = f"{path.name} ({dialect.name} names, {network.form} form)"
    metadata = Metadata(variant=variant.name if variant else None, form=network.form, source=source)
    return Checkpoint(tensors, network, source, metadata, dialect.name)


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
