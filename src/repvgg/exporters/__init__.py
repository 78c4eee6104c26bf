"""Artifacts: one file a target, which writes; `repvgg.runners` reads them back, with the target's own runtime.

What is written here is proved in `repvgg.exporting`, one floor above.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from repvgg.errors import InputError

TOLERANCES: Mapping[str, float] = {
    # Other kernels, another order of summation, nothing else.
    "float32": 1e-4,
}
"""Relative error up to which an artifact of a precision is kept."""


@dataclass(frozen=True)
class Target:
    """A kind of artifact.

    Attributes:
        module: has `write(model, path, metadata, settings)`.
        suffix: how its name ends.
        precisions: what its numbers may be stored as.
    """

    module: str
    suffix: str
    precisions: tuple[str, ...] = ("float32",)


TARGETS: Mapping[str, Target] = {
    "keras": Target("repvgg.exporters.keras", ".keras"),
    "onnx": Target("repvgg.exporters.onnx", ".onnx"),
}


@dataclass(frozen=True)
class Settings:
    """What an artifact is to be like, apart from the network in it.

    Attributes:
        precision: one of its target's precisions.
    """

    precision: str = "float32"


def format_of(path: Path) -> str:
    """The target whose suffix `path` has.

    Raises:
        InputError: if there is none.
    """
    for name, target in TARGETS.items():
        if path.suffix == target.suffix:
            return name
    endings = ", ".join(f"'{target.suffix}' ({name})" for name, target in TARGETS.items())
    raise InputError(f"The ending of '{path.name}' tells no format. Known: {endings}. Or name one: --format.")
