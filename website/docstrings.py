"""How docstrings are read: two of this package's habits put into words that the generator knows."""

import re
from typing import Any

import griffe

GROUPED = re.compile(r"^( +)(\w+(?:,\s+\w+)+): (.+(?:\n\1 +.+)*)$", re.MULTILINE)
ARGUMENTS = re.compile(r"^Args:\n(?:(?: .*)?\n)+", re.MULTILINE)


class Habits(griffe.Extension):
    """Arguments that share a line ("entry, prefix: ...") are described one by one, and an "Example:" is one."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002, D102 - griffe's own method
        if obj.docstring is not None:
            text = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n") + "\n"
            obj.docstring.value = ARGUMENTS.sub(lambda part: GROUPED.sub(_one_by_one, part[0]), text).rstrip("\n")


def _one_by_one(match: re.Match[str]) -> str:
    indent, names, text = match.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in re.split(r",\s+", names))
