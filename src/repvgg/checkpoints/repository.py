"""What a repository on the Hugging Face hub is called."""

import re
from dataclasses import dataclass
from typing import Final

from repvgg.base.errors import InputError

PREFIX: Final = "hf-hub:"
"""What tells a repository from a file or a variant, in timm's way."""

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_NAME = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?")
_LONGEST = 96
"""Characters that the hub allows in a repository's own name, and in its owner's."""


@dataclass(frozen=True)
class Repository:
    """A repository of a model, and what is meant of its history.

    Args:
        name: owner and name, "user/name".
        revision: branch, tag or commit.

    Raises:
        InputError: if it cannot be called so.
    """

    name: str
    revision: str = "main"

    def __post_init__(self) -> None:
        parts = self.name.split("/")
        if (
            not _NAME.fullmatch(self.name)
            or any(len(part) > _LONGEST for part in parts)
            or "--" in self.name
            or ".." in self.name
        ):
            raise InputError(
                f"A repository on the hub is called user/name, with letters, digits, '-', '_' and '.' in both. "
                f"Received: {self.name!r}."
            )
        if not _REVISION.fullmatch(self.revision) or ".." in self.revision or "//" in self.revision:
            raise InputError(
                f"A revision is a branch, a tag or a commit, as in {PREFIX}{self.name}@v1. Received: {self.revision!r}."
            )

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + ("" if self.revision == "main" else f"@{self.revision}")


def is_repository(text: str) -> bool:
    """Whether a repository is meant, well spelled or not."""
    return text.startswith(PREFIX)


def parse_repository(text: str) -> Repository:
    """Reads "hf-hub:user/name" or "hf-hub:user/name@revision".

    Raises:
        InputError: if it is spelled otherwise.

    Example:
        >>> parse_repository("hf-hub:timm/repvgg_a0.rvgg_in1k@main").name
        'timm/repvgg_a0.rvgg_in1k'
    """
    name, at, revision = text.removeprefix(PREFIX).partition("@")
    return Repository(name, revision if at else "main")
