"""Commands as people read them: help in whole paragraphs, and messages in the words of the command line.

What the package says in Python's words, such as "`batch_size` must be at least 1" or "distill=1", becomes "--batch" and
"--distill 1" where it was typed so.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import Any, get_args, get_origin

from typer.models import OptionInfo

from repvgg.base.errors import RepVGGError

SAME: Mapping[str, str] = {
    "batch_size": "batch",
    "image_size": "size",
    "num_classes": "classes",
    "dtype": "precision",
    "calibration_count": "count",
    "local_files_only": "offline",
    "num_ops": "rand_augment",
    "magnitude": "rand_augment",
}
"""Arguments in Python that are called otherwise on the command line: the name of the command's parameter."""

_VALUE = r"(?:\.\.\.|'[^']*'|\"[^\"]*\"|\([^()]*\)|[^\s,;()]*[^\s,;().:?])"

_PYTHON = rf"(?:`\w+`|\w+={_VALUE}|(?:\w+\.)+\w+(?:\([^()]*\))?|\w+\([^()]*\)|[a-z]+(?:_[a-z]+)+)"
"""What is not a word of a sentence: a name in backticks or with a dot or underscore, an assignment, a call."""


def spoken(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with messages of errors in the words of its own options."""
    options = _options(command)

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except RepVGGError as error:
            error.args = (in_options(str(error), options), *error.args[1:])
            raise

    return run


def paragraphs(command: Callable[..., None]) -> str:
    """A command's docstring with a line for each paragraph, for a terminal of any width to break."""
    text = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def name_types(command: Callable[..., None]) -> None:
    """Lets options that may be repeated show what one of them takes, and not Python's `list[Path]`."""
    for told, kind in _told(command):
        for item in (kind, *get_args(kind)):
            if get_origin(item) is list and told.metavar is None:
                told.metavar = f"<{get_args(item)[0].__name__.lower()}>"


def in_options(message: str, options: Mapping[str, str]) -> str:
    """A message in the words of the command line.

    Args:
        options: the option for each name that stands for one in Python.

    Example:
        >>> in_options("`batch_size` must be at least 1, or pass --force (force=True).", {"batch_size": "--batch"})
        '--batch must be at least 1, or pass --force.'
    """
    # Said in both ways, either first: the option alone.
    message = re.sub(rf"(--[a-z][\w-]*) \(\w+={_VALUE}\)", r"\1", message)
    message = re.sub(rf"{_PYTHON} \((--[^()]+)\)", r"\1", message)
    # What stands in a call is Python, and is meant to be.
    parts = re.split(r"([\w.]+\((?:[^()]|\([^()]*\))*\))", message)
    parts[::2] = [_translated(part, options) for part in parts[::2]]
    message = "".join(parts)
    # Nobody can type None; an option is given or it is not.
    return re.sub(r" is None, ", " is ", message.replace(", or None", ", or not given"))


def _translated(text: str, options: Mapping[str, str]) -> str:
    def assignment(found: re.Match[str]) -> str:
        option = options.get(found[1])
        if option is None:
            return found[0]
        if found[2] in ("True", "False"):
            return option if found[2] == "True" else f"--no-{option.removeprefix('--')}"
        return f"{option} {found[2]}"

    # Not in quotation marks: there stand names of files.
    text = re.sub(r"`(\w+)`", lambda found: options.get(found[1], found[0]), text)
    return re.sub(rf"(?<![\w.'/])(\w+)=({_VALUE})", assignment, text)


def _told(command: Callable[..., None]) -> Iterator[tuple[OptionInfo, Any]]:
    """What a command says of each option, and the option's type."""
    for parameter in inspect.signature(command).parameters.values():
        kind, *told = get_args(parameter.annotation) or (None,)
        yield from ((one, kind) for one in told if isinstance(one, OptionInfo))


def _options(command: Callable[..., None]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        told = next((one for one in get_args(parameter.annotation) if isinstance(one, OptionInfo)), None)
        if told is not None:
            names = [one for one in told.param_decls or () if one.startswith("--")]
            option = names[0].partition("/")[0] if names else f"--{name.replace('_', '-')}"
            found[name] = option
            found[option.removeprefix("--").replace("-", "_")] = option
    return {**{name: found[same] for name, same in SAME.items() if same in found}, **found}
