"""The few sentences in which a checkpoint file is turned down."""

from repvgg.base.errors import CheckpointError, UnsafeCheckpointError


def shown(value: object) -> str:
    """Gives `value` for a message: short, and without the control characters a file could smuggle to a terminal.

    Containers are only named by type: writing out one that refers to itself many times over would never end.
    """
    if isinstance(value, str):
        text = ascii(value[:121])[1:-1]
    else:
        text = ascii(value) if value is None or isinstance(value, int | float) else f"a {type(value).__name__}"
    return text if len(text) <= 120 else f"{text[:117]}..."


def damaged(what: str) -> CheckpointError:
    """A file that contradicts itself or its format."""
    return CheckpointError(f"{what} The file is damaged or was changed: download it again, or save it again.")


def unsafe(what: str) -> UnsafeCheckpointError:
    """A pickle that wants more than tensors and plain containers."""
    return UnsafeCheckpointError(
        f"{what} Only tensors, numbers, text and plain containers are read, and nothing in the file has run. "
        "If you trust its source, load it there with torch and save `model.state_dict()` alone."
    )
