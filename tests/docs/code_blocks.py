"""The code blocks of README.md and docs/, and what each has to be to be right."""

import re
import shlex
import tomllib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
import yaml

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
LANGUAGES = ("bash", "c", "console", "python", "text", "toml", "yaml")
OUTPUT = "text"
"""The language of what is printed, and of formulas."""

OTHER_PROGRAMS = ("cc", "cd", "curl", "npm", "pnnx", "tensorflow_model_server")
"""What pages may call besides this repository: nothing is known of their options here."""

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*)\s*$")
_NOT_RUN = re.compile(r"^ *<!-- not run: (?P<reason>.+) -->$")
_SPAN = re.compile(r"(?<!`)`(repvgg [a-z][^`\n]*)`(?!`)")
_INSIDE = re.compile(r"\brepvgg [a-z][^'\n;|&]*")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: below the repository's root.
        line: of its first fence, from 1.
        not_run: what the comment above it says; None without one.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None

    @property
    def place(self) -> str:
        """Where an editor finds it."""
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name in the first line of a block that is a file: `# mine.py`."""
        named = re.match(r"# (\w+\.py)\n", self.text)
        return named[1] if named else None

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command of a shell block; of a session, what stands after its prompts."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [list(words) for line in lines for words in _split(line)]


@cache
def blocks_of(page: Path) -> tuple[Block, ...]:
    """All fenced blocks, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = number
            continue
        opened = _FENCE.match(lines[start])
        assert opened is not None
        assert not fence["language"], f"{page}:{number + 1}: a block begins in the block of line {start + 1}"
        text = "".join(line.removeprefix(opened["indent"]) + "\n" for line in lines[start + 1 : number])
        above = _NOT_RUN.match(lines[start - 1])
        place = page.relative_to(ROOT).as_posix()
        found.append(Block(place, start + 1, opened["language"], text, above["reason"] if above else None))
        start = None
    assert start is None, f"{page}: the block of line {(start or 0) + 1} does not end"
    return tuple(found)


def all_blocks() -> list[Block]:
    """Those of every page."""
    return [block for page in PAGES for block in blocks_of(page)]


def spans() -> Iterator[tuple[str, str]]:
    """Commands within the text of pages, each with its place."""
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            for match in _SPAN.finditer(line):
                yield f"{page.relative_to(ROOT)}:{number}", match[1]


def commands_inside(block: Block) -> list[list[str]]:
    """Calls of `repvgg` within a script or a manifest."""
    text = block.text.replace("\\\n", " ")
    if block.language == "yaml":
        text = "\n".join(_strings(list(yaml.safe_load_all(text))))
    return [words for call in _INSIDE.findall(text) for words in _split(call)]


def check_syntax(block: Block) -> None:
    """Fails for what no program of its language would read."""
    match block.language:
        case "python":
            compile(block.text, block.place, "exec")
        case "toml":
            tomllib.loads(block.text)
        case "yaml":
            list(yaml.safe_load_all(block.text))


def check_command(words: list[str], files: Collection[str] = ()) -> None:
    """Fails for a command, an option, a target, an extra or a file that does not exist.

    Args:
        files: names of the files that the page itself has; they end in this package's command line.
    """
    program, *arguments = words
    if program == "repvgg":
        parse(arguments)
    elif program == "python" and arguments[0] in files:
        parse(arguments[1:])
    elif program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets), words
    elif program == "pip":
        assert arguments[0] == "install", words
        for extra in re.findall(r"\[([a-z,]+)\]", " ".join(arguments)):
            assert set(extra.split(",")) <= set(_extras()), words
    elif program == "python":
        _check_script(arguments)
    else:
        assert program in OTHER_PROGRAMS, f"{words}: an unknown program"


def parse(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and what each of its parameters is; nothing is run, and no framework is started.

    Raises:
        click.UsageError: for what the command line would refuse.
    """
    name, *rest = arguments
    commands = _commands()
    assert name in commands, f"There is no command 'repvgg {name}'."
    return name, commands[name].make_context(name, rest).params


def check_options(words: list[str]) -> None:
    """Fails for a command or option that does not exist; of a sentence's few words no more can be said."""
    _, name, *rest = words
    commands = _commands()
    assert name in commands, f"There is no command 'repvgg {name}'."
    known = {spelled for one in commands[name].params for spelled in (*one.opts, *one.secondary_opts)} | {"--help"}
    for word in rest:
        option = word.strip("[]").split("=")[0]
        assert not option.startswith("-") or option in known, f"'repvgg {name}' has no option {option}."


def _split(line: str) -> Iterator[list[str]]:
    """The commands of a line, without the settings of variables before them."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word != "&&":
            words.append(re.sub(r"\$\w+", "1", word))
        elif words:
            while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                words.pop(0)
            yield words
            words = []


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


@cache
def _commands() -> dict[str, Any]:
    from repvgg.cli.commands import app

    commands: dict[str, Any] = typer.main.get_command(app).commands
    return commands


@cache
def _extras() -> tuple[str, ...]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(project["optional-dependencies"])


def _check_script(arguments: list[str]) -> None:
    script, *rest = arguments
    if script == "...":
        return
    if script == "-m":
        assert find_spec(rest[0]) is not None, arguments
        return
    files = [folder / script for folder in (ROOT, ROOT / "examples" / "serving") if (folder / script).exists()]
    assert files, f"{script} does not exist"
    text = files[0].read_text(encoding="utf-8")
    for option in (word for word in rest if word.startswith("--")):
        # As argparse has it, or as typer has: a parameter of `main`.
        parameter = option[2:].replace("-", "_")
        assert f'"{option}"' in text or f"\n    {parameter}: Annotated[" in text, f"{script} has no option {option}"
