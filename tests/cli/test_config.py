"""Options from a file, and which of them count."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from repvgg.base.errors import FileError, InputError, UnknownNameError
from repvgg.cli.commands import app

TOML = """
data = "flowers"
model = "RepVGG-A1"
epochs = 60
warmup-epochs = 3
batch_size = 16
crop_scale = [0.5, 1.0]
flip = false
precision = "mixed_bfloat16"
"""

YAML = """
data: flowers
epochs: 60
rand-augment: [1, 5]
strict: yes
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """What `repvgg train` asks for, by what is typed."""
    monkeypatch.chdir(tmp_path)
    seen: dict[str, Any] = {}

    def instead(given: dict[str, Any], **how: bool) -> None:
        seen.update(given)
        raise InputError("enough")

    monkeypatch.setattr("repvgg.training.request.checked_request", instead)

    def call(*arguments: str) -> dict[str, Any]:
        seen.clear()
        result = CliRunner().invoke(app, ["train", *arguments])
        if result.exception is not None and str(result.exception) != "enough":
            raise result.exception
        return dict(seen)

    return call


def test_only_what_was_typed_is_asked_for(asked) -> None:  # type: ignore[no-untyped-def]
    assert asked("flowers") == {"data": Path("flowers")}
    assert asked("flowers", "--no-flip", "--seed", "0") == {"data": Path("flowers"), "flip": False, "seed": 0}
    assert asked() == {}


def test_a_file_says_the_same_as_the_command_line(asked, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "run.toml").write_text(TOML.replace("batch_size", "batch"))
    expected = {
        "data": Path("flowers"),
        "model": "RepVGG-A1",
        "epochs": 60,
        "warmup_epochs": 3.0,
        "batch_size": 16,
        "crop_scale": (0.5, 1.0),
        "flip": False,
        "dtype": "mixed_bfloat16",
    }
    assert asked("--config", "run.toml") == expected
    typed = asked("--config", "run.toml", "tulips", "--epochs", "5", "--flip")
    assert typed == {**expected, "data": Path("tulips"), "epochs": 5, "flip": True}
    (tmp_path / "run.yaml").write_text(YAML)
    assert asked("--config", "run.yaml") == {
        "data": Path("flowers"),
        "epochs": 60,
        "rand_augment": (1, 5.0),
        "strict": True,
    }


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("a.toml", TOML, UnknownNameError, r"in 'a.toml'\) called 'batch_size'. Did you mean batch"),
        ("a.yml", "epoch: 3", UnknownNameError, "Did you mean epochs"),
        ("a.yml", "resume: true", UnknownNameError, "called 'resume'"),
        ("a.yml", "recipe:\n  epochs: 3", InputError, "'recipe' in 'a.yml' is a section"),
        ("a.yml", "- epochs", FileError, "contains no names with values"),
        ("a.toml", "epochs: 3", FileError, "'a.toml' cannot be read: "),
        ("a.json", "{}", FileError, "ends in .toml, .yaml, .yml"),
    ],
)
def test_files_that_are_none(asked, name: str, text: str, error: Any, message: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=message):
        asked("--config", name)
    with pytest.raises(FileError, match=r"The file of options 'none\.toml' does not exist"):
        asked("--config", "none.toml")


def test_a_wrong_value_is_a_mistake_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("epochs: many")
    result = CliRunner().invoke(app, ["train", "--config", str(tmp_path / "a.yml")])
    assert result.exit_code == 2
    assert "--epochs" in result.output


def test_other_commands_have_it_too(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("model: missing.onnx\ndata: missing")
    result = CliRunner().invoke(app, ["evaluate", "--config", str(tmp_path / "a.yml")])
    assert isinstance(result.exception, FileError)
    assert "missing" in str(result.exception)
