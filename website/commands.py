"""Pages of the command line, made from the commands themselves: usage, arguments and options as typer has them."""

import enum
import inspect
import typing
from types import NoneType
from typing import Any

import typer

from repvgg.cli.commands import app

FOLDER = "reference/commands"
WORDS = {int: "integer", float: "number", str: "text", bool: "", "Path": "path"}


def command_pages() -> dict[str, str]:
    """A page for each command, by its place on the site, and one that lists them."""
    group = typer.main.get_command(app)
    rows = [
        f"| [`repvgg {name}`]({name}.md) | {_cell(_summary(command))} |" for name, command in group.commands.items()
    ]
    overview = "\n".join(
        [
            "# Command line",
            "",
            str(group.help),
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "Exit status 0 is success, 1 a failed check or training, 2 a mistake in what was given, and 128 plus the "
            "signal's number for what a signal stopped. `-h` and `--help` say what stands here; nothing is overwritten "
            "without `--force`.",
            "",
        ]
    )
    return {f"{FOLDER}/index.md": overview} | {
        f"{FOLDER}/{name}.md": _page(name, command) for name, command in group.commands.items()
    }


def _page(name: str, command: Any) -> str:
    text, _, example = inspect.cleandoc(command.help).partition("Example:")
    shown = [parameter for parameter in command.params if not parameter.hidden and parameter.name != "help"]
    arguments = [parameter for parameter in shown if not parameter.opts[0].startswith("-")]
    options = [parameter for parameter in shown if parameter.opts[0].startswith("-")]
    types = typing.get_type_hints(command.callback)
    lines = [f"# repvgg {name}", "", text.strip(), "", "```bash", _usage(name, arguments, options), "```"]
    if example:
        lines += ["", "Example:", "", "```bash", inspect.cleandoc(example.strip()), "```"]
    if arguments:
        lines += ["", "## Arguments", "", "| argument | |", "|---|---|"]
        lines += [f"| `{parameter.name.upper()}` | {_cell(parameter.help)} |" for parameter in arguments]
    for panel in dict.fromkeys(option.rich_help_panel for option in options):
        lines += ["", f"## {panel or 'Options'}", "", "| option | value | default | |", "|---|---|---|---|"]
        lines += [_row(option, types[option.name]) for option in options if option.rich_help_panel == panel]
    return "\n".join([*lines, ""])


def _summary(command: Any) -> str:
    return inspect.cleandoc(command.help).split("\n\n")[0]


def _usage(name: str, arguments: list[Any], options: list[Any]) -> str:
    words = ["repvgg", name, *(["[OPTIONS]"] if options else [])]
    for argument in arguments:
        word = argument.name.upper() + ("..." if argument.nargs == -1 else "")
        words.append(word if argument.required else f"[{word}]")
    return " ".join(words)


def _row(option: Any, annotation: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    default = "" if option.default in (None, False) or option.secondary_opts else f"`{_plain(option.default)}`"
    if option.secondary_opts and option.default is not None:
        default = f"`{(option.opts if option.default else option.secondary_opts)[0]}`"
    return f"| {flags} | {_cell(_kind(annotation))} | {default} | {_cell(option.help)} |"


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _kind(annotation: Any) -> str:
    """A type as a person says it."""
    parts = typing.get_args(annotation)
    if NoneType in parts:
        return _kind(next(part for part in parts if part is not NoneType))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in annotation)
    if parts:
        return ", ".join(_kind(part) for part in parts if part is not Ellipsis)
    return WORDS.get(annotation, WORDS.get(annotation.__name__, annotation.__name__))


def _cell(text: str | None) -> str:
    """Text that a table's cell holds."""
    return " ".join((text or "").split()).replace("|", "\\|").replace("<", "&lt;")
