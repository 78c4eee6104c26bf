"""Every code block of README.md and docs/ is right: Python is run, page by page, and so are short commands."""

import contextlib
import io
import re
import runpy
import shutil
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from code_blocks import (
    LANGUAGES,
    OUTPUT,
    PAGES,
    ROOT,
    Block,
    all_blocks,
    blocks_of,
    check_command,
    check_options,
    check_syntax,
    commands_inside,
    parse,
    spans,
)
from command_line import runner
from prepared_world import SHORTER, given_names, make_world, published_weights

from narrow import narrow_variants
from own_rows import own_rows_forgotten

BLOCKS = all_blocks()
SHELL = [block for block in BLOCKS if block.language in {"bash", "console"} and block.not_run is None]
WITH_CODE = [page for page in PAGES if any(block.language in {"python", "bash"} for block in blocks_of(page))]
INT8 = ("docs/int8.md", "docs/quantization-aware.md", "docs/tutorials/int8.md", "docs/tutorials/your-images.md")
"""Pages that quantize, which takes longest: commands for it on other pages are only read."""

TRAINING = ("docs/training.md", "docs/extending.md", "docs/tutorials/block.md")
SLOW = (*INT8, *TRAINING, "docs/hub.md", "docs/report.md", "docs/serving.md")
"""Pages that the full suite runs."""

NOT_RUN = {"docs/cluster.md": 2, "docs/hub.md": 1}
"""How many blocks of a page nothing here can run. Each has a comment above it, with the reason."""

SHORT = ("convert", "evaluate", "export", "inspect", "list", "predict", "push", "report", "shard", "verify")
"""Commands that are run. The others train, measure for a while, or serve until they are stopped."""


def _named(block: Block) -> str:
    return block.place


def test_blocks_are_of_known_languages() -> None:
    assert [block.place for block in BLOCKS if block.language not in LANGUAGES] == []


def test_code_is_fenced() -> None:
    """Indented code is run by nothing. Items of lists go on indented, and so does code within fences."""
    for page in PAGES:
        outside = re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        found = re.search(r"^[^\s\-*\d].*\n\n {4}\S.*", outside, re.MULTILINE)
        assert found is None, f"{page}: {found and found[0]}"


def test_what_is_not_run_is_counted() -> None:
    found = Counter(block.page for block in BLOCKS if block.not_run is not None)
    assert found == NOT_RUN
    for page in PAGES:
        comments = re.findall(r"<!-- not run: ", page.read_text(encoding="utf-8"))
        assert len(comments) == found[page.relative_to(ROOT).as_posix()], f"{page}: a comment without a block below it"


def test_how_many_there_are() -> None:
    """With -s it says so."""
    counts = Counter(what_happens_to(block) for block in BLOCKS)
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"\n{len(BLOCKS)} blocks on {len(PAGES)} pages: {told}")
    assert counts["run"] > counts["read"] + counts["not run"]


def what_happens_to(block: Block) -> str:
    if block.not_run is not None:
        return "not run"
    if block.language == OUTPUT:
        return "output"
    if block.language == "python":
        return "run"
    return "run" if block.language == "bash" and any(is_run(words, block.page) for words in block.commands) else "read"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language != OUTPUT], ids=_named)
def test_syntax(block: Block) -> None:
    check_syntax(block)


@pytest.mark.parametrize("block", SHELL, ids=_named)
def test_commands_exist(block: Block, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read as the command line reads them, where the files that a page begins with are there."""
    monkeypatch.chdir(world)
    assert block.commands
    for words in block.commands:
        check_command(words, files_of(block.page))


def test_commands_within_scripts_and_sentences() -> None:
    scripts = [block for block in BLOCKS if block.not_run is not None and block.language in {"bash", "yaml"}]
    for block in scripts:
        commands = commands_inside(block)
        assert commands, block.place
        for words in commands:
            check_command(words)
    for place, text in spans():
        try:
            check_options(text.split())
        except AssertionError as error:
            raise AssertionError(f"{place}: {error}") from error


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "toml"], ids=_named)
def test_files_of_options_are_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "options.toml"
    file.write_text(block.text, encoding="utf-8")
    _, values = parse(["train", "--config", str(file)])
    assert str(values["data"]) == tomllib.loads(block.text)["data"]


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "c"], ids=_named)
def test_declarations_are_those_of_headers(block: Block) -> None:
    writer = (ROOT / "src/repvgg/targets/object/write.py").read_text(encoding="utf-8")
    assert all(f"\n{line}\n" in writer for line in block.text.splitlines())


def test_wrong_commands_are_found() -> None:
    for words in ("repvgg trian x", "make demos", "pip install 'repvgg[onxx]'", "python benchmarks/none.py", "ls"):
        block = Block("page", 1, "bash", words, None)
        with pytest.raises(AssertionError):
            check_command(block.commands[0])
    with pytest.raises(Exception, match="--bacth"):
        check_command(["repvgg", "export", "model.keras", "model.onnx", "--bacth", "8"])
    with pytest.raises(Exception, match="integer"):
        check_command(["repvgg", "export", "model.keras", "model.onnx", "--batch", "eight"])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    with narrow_variants():
        make_world(folder)
    return folder


@pytest.fixture
def page_world(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy to work in; what a page adds to tables is gone afterwards."""
    folder = tmp_path / "world"
    shutil.copytree(world, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    modules = set(sys.modules)
    with narrow_variants(), own_rows_forgotten(), published_weights(tmp_path / "hub", monkeypatch):
        yield folder
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and Path(str(sys.modules[name].__file__)).parent == folder:
            del sys.modules[name]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.full if page.relative_to(ROOT).as_posix() in SLOW else ())
        for page in WITH_CODE
    ],
    ids=lambda page: page.relative_to(ROOT).as_posix(),
)
def test_pages_run(
    page: Path, page_world: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From top to bottom: Python in one namespace, commands in the same folder."""
    names: dict[str, Any] = given_names(page.relative_to(ROOT).as_posix(), page_world)
    call = runner(monkeypatch, capsys)
    for block in blocks_of(page):
        if block.not_run is not None:
            continue
        if block.file is not None:
            (page_world / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            text = shortened(block)
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile("\n" * block.line + text, str(page), "exec"), names)
        elif block.language == "bash":
            for words in replace(block, text=shortened(block)).commands:
                if is_run(words, block.page):
                    _run(call, words[1:], block) if words[0] == "repvgg" else _run_file(words[1:], block, monkeypatch)


def is_run(words: list[str], page: str) -> bool:
    """Whether it is short, and this package's command line, or that of a file which the page has."""
    program, *arguments = words
    if program == "python" and arguments[0] in files_of(page):
        return arguments[1] in SHORT
    return program == "repvgg" and arguments[0] in SHORT and ("int8" not in words or page in INT8)


def files_of(page: str) -> set[str]:
    """Names of the blocks of a page that are files."""
    return {block.file for block in BLOCKS if block.page == page and block.file}


def shortened(block: Block) -> str:
    text = block.text
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def _run(call: Any, arguments: list[str], block: Block) -> None:
    force = ["--force"] if arguments[0] in {"convert", "export", "report", "shard"} else []
    done = call(*arguments, *(option for option in force if option not in arguments))
    assert done.status == 0, f"{block.place}: repvgg {' '.join(arguments)}\n{done.errors}"


def _run_file(arguments: list[str], block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of the page that ends in the command line."""
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(arguments[0], run_name="__main__")
    assert not stopped.value.code, f"{block.place}: python {' '.join(arguments)}"


def test_what_is_shortened_is_there() -> None:
    text = "".join(block.text for block in BLOCKS)
    assert [long for long in SHORTER if long not in text] == []
