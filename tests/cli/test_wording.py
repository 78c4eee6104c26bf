"""Help and messages speak the command line's words, and not Python's."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Run, runner
from rich.table import Table

from repvgg.base.words import counted
from repvgg.cli.commands import app
from repvgg.cli.terminal import console
from repvgg.cli.wording import in_options
from repvgg.training.recipe import RECIPES

COMMANDS = [command.name for command in app.registered_commands]

OPTIONS = {
    "batch_size": "--batch",
    "seed": "--seed",
    "distill": "--distill",
    "force": "--force",
    "size": "--size",
    "weights": "--weights",
    "ema": "--ema",
    "tensorboard": "--tensorboard",
    "calibration": "--calibration",
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.mark.parametrize(
    ("python", "typed"),
    [
        ("Say how much: distill=1 for all.", "Say how much: --distill 1 for all."),
        ("Choose another name, or pass --force (force=True).", "Choose another name, or pass --force."),
        ("Say which: size=224 (--size 224).", "Say which: --size 224."),
        ("`batch_size` (=3) must be at least 4.", "--batch (=3) must be at least 4."),
        ("`batch_size` of a recipe is a number. Received: 'a'.", "--batch of a recipe is a number. Received: 'a'."),
        ("calibration=... (--calibration FOLDER). A few", "--calibration FOLDER. A few"),
        ("There is none: force=True, tensorboard=False.", "There is none: --force, --no-tensorboard."),
        ("`weights` is None, 'imagenet' or a file.", "--weights is 'imagenet' or a file."),
        (
            "`ema` of a recipe must be between 0 and 1, or None.",
            "--ema of a recipe must be between 0 and 1, or not given.",
        ),
        ("Convert it with repvgg.reparameterize (--deploy) first.", "Convert it with --deploy first."),
        ("Leave with_preprocessing (--with-preprocessing) out.", "Leave --with-preprocessing out."),
        # What is not an option stays as it is.
        ("Start with a lower rate (--learning-rate, a third of it) or a limit (--clip-norm 1).", None),
        ("`repvgg shard` writes them; KERAS_BACKEND=jax, pip install 'repvgg[onnx]'", None),
        ("Set it with repvgg.set_metadata(model, seed=1).", None),
        ("The file 'runs/seed=1.keras' does not exist; nor does 'seed=2'.", None),
    ],
)
def test_in_options(python: str, typed: str | None) -> None:
    assert in_options(python, OPTIONS) == (typed or python)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "flowers", "--batch", 0], "--batch of a recipe must be at least 1. Received: 0."),
        (["train", "flowers", "--model", "repopt-vgg-a0"], "Search them first with --search-epochs 20, say, or give"),
        (["train", "flowers", "--scales", "a.pth", "--search-epochs", 2], "--scales and --search-epochs both say"),
        (["train", "flowers", "--ema", 2], "--ema of a recipe must be between 0 and 1, or not given. Received: 2.0."),
        (["train", "flowers", "--rand-augment", 1, 11], "--rand-augment of an augmentation must be between 0 and 10."),
        (["convert", "a.pth", "b.keras", "--output-stride", 7], "--output-stride is one of"),
        (["verify", "a.onnx", "b.onnx", "--picture", "there.png"], "or pass --force."),
        (["benchmark", "RepVGG-A0", "--size", 8], "--size (=8) is below 32 pixels"),
    ],
)
def test_messages(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").touch()
    result = run(*arguments)
    assert result.status == 2
    assert message in result.sentence
    assert not re.search(r"`\w+`|\w=(True|False|None)", result.errors)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_in_paragraphs(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """At a width that breaks nothing, a line for each paragraph, an example among them, and no type of Python's."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)
    result = run(name, "--help")
    assert result.status == 0
    prose = result.output.partition("╭")[0]
    lines = [line.strip() for line in prose.splitlines() if line.strip()]
    assert lines[-1].startswith(f"Example: repvgg {name}")
    for line in lines[1:]:
        assert line[-1] in ".:)" or line.startswith("Example: ")
        assert not line[0].islower()
    assert not [line for line in result.output.splitlines() if line.startswith("│ --") and "list[" in line]


def test_help_tells_the_recipes_own_values(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 1000)
    text = run("train", "--help").output
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("│ --")}
    for recipe, values in RECIPES.items():
        assert re.search(rf"\b{values.epochs} in ([\w-]+, )*{recipe}\b", lines["--epochs"])
    assert "(default: 0.9)" in lines["--momentum"]
    assert "2 9 in plus" in lines["--rand-augment"]
    assert "the network's in qat" in lines["--size"]


def test_counted() -> None:
    assert [counted(1, "epoch"), counted(2, "epoch"), counted(0, "image")] == ["1 epoch", "2 epochs", "0 images"]
    assert [counted(3, "class", "classes"), counted(0.5, "point"), counted(1.0, "point")] == [
        *("3 classes", "0.5 points", "1 point")
    ]
    assert counted(1234567, "image") == "1234567 images"


@pytest.mark.parametrize("name", ["list", "inspect"])
def test_tables_are_whole_in_a_pipe(name: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "repvgg", name, *(["RepVGGplus-L2pse"] if name == "inspect" else [])],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "…" not in finished.stdout


def test_texts_in_tables_are_folded_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = console()
    table = Table("file")
    table.add_column("name", no_wrap=True)
    table.add_column("error", justify="right", no_wrap=True)
    path, name = "a/" + 30 * "b" + ".onnx", "stage3_block13_with_a_long_name"
    table.add_row(path, name, "1.23e-07")
    out.print(table)
    printed = capsys.readouterr().out
    assert "…" not in printed
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.splitlines() if "│" in line]
    assert ["".join(column) for column in zip(*cells, strict=True)] == [path, name, "1.23e-07"]
