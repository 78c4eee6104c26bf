"""What a checkpoint file is, told without building the model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from repvgg.base.metadata import Form
from repvgg.checkpoints.canonical import is_statistic
from repvgg.checkpoints.checkpoint import understand
from repvgg.checkpoints.tensor_files import Container, read_tensors
from repvgg.core.architecture import Architecture


@dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint file at a glance.

    Attributes:
        container: the kind of file.
        dialect: whose names its tensors have.
        variant: the named network it is, or None.
        dtypes: element types of its tensors, widest first.
        file_bytes: size of the file.
        parameters: learned numbers; running statistics and counters are not among them.
        wrapper: entries that were opened to find the tensors, outermost first.
        prefix: what was taken off every name.
        left: what stands beside the network under other names, with the number of tensors.
        passed_over: entries that may hold other weights.
        beside: other entries of the file.
    """

    path: Path
    container: Container
    dialect: str
    form: Form
    architecture: Architecture
    variant: str | None
    in_channels: int
    num_classes: int | None
    dtypes: tuple[str, ...]
    file_bytes: int
    parameters: int
    wrapper: tuple[str, ...]
    prefix: str
    left: Mapping[str, int]
    passed_over: tuple[str, ...]
    beside: tuple[str, ...]


def describe_checkpoint(
    path: str | Path, *, entry: str | None = None, prefix: str | None = None
) -> CheckpointDescription:
    """Reads a torch or safetensors file and says what it is. Keras is not needed.

    Args:
        entry, prefix: as for `load_checkpoint`.

    Raises:
        FileError: if there is no such file.
        CheckpointError: if it is damaged, unsafe, or not exactly a RepVGG.

    Example:
        >>> describe_checkpoint("RepVGG-A0-train.pth").variant  # doctest: +SKIP
        'RepVGG-A0'
    """
    path = Path(path)
    file = read_tensors(path, entry=entry)
    checkpoint = understand(file, path, prefix=prefix)
    network = checkpoint.network
    variant = network.variant
    return CheckpointDescription(
        path=path,
        container=file.container,
        dialect=checkpoint.dialect,
        form=network.form,
        architecture=network.architecture,
        variant=variant.name if variant else None,
        in_channels=network.in_channels,
        num_classes=network.num_classes,
        dtypes=checkpoint.dtypes,
        file_bytes=path.stat().st_size,
        parameters=sum(tensor.size for name, tensor in checkpoint.tensors.items() if not is_statistic(name)),
        wrapper=file.wrapper,
        prefix=checkpoint.prefix,
        left=checkpoint.left,
        passed_over=file.passed_over,
        beside=file.beside,
    )
