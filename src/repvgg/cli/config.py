"""`--config FILE`: options of a command from a YAML or TOML file."""

import inspect
import tomllib
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from repvgg.base.errors import FileError, InputError, UnknownNameError
from repvgg.base.files import require_file

ENDINGS = (".toml", ".yaml", ".yml")

_NOT_IN_A_FILE = ("config", "help", "resume", "force")


def was_given(context: typer.Context, name: str) -> bool:
    """Whether an option or argument was typed or stands in the file of options."""
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def configurable(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option more: a file of its options and arguments. What is typed counts more."""

    @wraps(command)
    def configured(*, config: Path | None, **given: Any) -> None:  # noqa: ARG001 - its callback does everything
        command(**given)

    signature = inspect.signature(command)
    option = typer.Option(
        "--config",
        is_eager=True,
        callback=_read,
        help="A YAML or TOML file of options, such as epochs: 60. What is typed counts more.",
    )
    parameter = inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, option]
    )
    parameters = [*signature.parameters.values(), parameter]
    configured.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    configured.__annotations__ = {one.name: one.annotation for one in parameters}
    return configured


def _read(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_options_of(context, path)}
    return path


def _options_of(context: typer.Context, path: Path) -> dict[str, Any]:
    names = {
        spelled: one
        for one in context.command.params
        if one.name is not None and one.name not in _NOT_IN_A_FILE
        for spelled in _spellings(one)
    }
    found: dict[str, Any] = {}
    for key, value in read_settings(path).items():
        option = names.get(str(key).replace("_", "-"))
        if option is None:
            raise UnknownNameError(f"option of `{context.command_path}` (in '{path}')", str(key), names)
        if isinstance(value, dict):
            raise InputError(f"'{key}' in '{path}' is a section, and a value was expected: options stand at the top.")
        found[str(option.name)] = value
    return found


def _spellings(parameter: Any) -> list[str]:
    """What it is called in a file: as on the command line, without the dashes before it."""
    return [name.lstrip("-") for name in parameter.opts]


def read_settings(path: Path) -> dict[str, Any]:
    """Names and values from a YAML or TOML file.

    Raises:
        FileError: if it is missing, or not such a file.
    """
    require_file(path, what="file of options")
    if path.suffix not in ENDINGS:
        raise FileError(f"A file of options ends in {', '.join(ENDINGS)}. Received: '{path.name}'.")
    try:
        text = path.read_text(encoding="utf-8")
        values = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(f"'{path}' cannot be read: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise FileError(f"'{path}' contains no names with values, such as epochs: 60.")
    return values
