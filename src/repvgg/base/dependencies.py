"""Optional packages, imported where they are needed."""

from importlib import import_module
from typing import Any

from repvgg.base.errors import MissingDependencyError


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Imports `module`, or says which extra brings it.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".", maxsplit=1)[0] != error.name.split(".")[0]:
            raise
        raise MissingDependencyError(
            f"{purpose} needs the package '{module.split('.', maxsplit=1)[0]}', which is not installed: "
            f"pip install 'repvgg[{extra}]'"
        ) from error
