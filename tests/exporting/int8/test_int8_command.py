"""`repvgg export --precision int8`."""

import sys
from pathlib import Path

import pytest

import repvgg
from fitted import digits, fitted
from repvgg.cli import main
from repvgg.quantization import scale_channels

for module in ("onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(module)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in a file, and images in class folders."""
    folder = tmp_path_factory.mktemp("command")
    repvgg.save_model(fitted(num_blocks=[1, 1, 1, 1], width_multiplier=[0.125] * 4), folder / "model.keras")
    for index in range(100):
        label = folder / "images" / str(digits().test_labels[index])
        label.mkdir(parents=True, exist_ok=True)
        digits().test_pictures[index].save(label / f"{index}.png")
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["repvgg", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_good_enough(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    images, output, picture = place / "images", place / "good.onnx", place / "good.png"
    options = ("--precision", "int8", "--calibration", images, "--evaluate", images, "--max-drop", "6")
    more = ("--calibration-count", "40", "--seed", "3", "--report", picture)
    assert run(monkeypatch, "export", place / "model.keras", output, *options, *more) == 0
    shown = capfd.readouterr().out
    for part in ("default", "accuracy in INT8", "top-1 agreement", "good enough", "stage4_block0", "Written:"):
        assert part in shown, part
    assert picture.stat().st_size > 10_000
    assert repvgg.load_runner(output).metadata.precision == "int8"


def test_not_good_enough(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    repvgg.save_model(scale_channels(repvgg.load_model(place / "model.keras"), 1000.0), place / "hard.keras")
    options = ("--precision", "int8", "--calibration", place / "images", "--scheme", "naive")
    assert run(monkeypatch, "export", place / "hard.keras", place / "bad.onnx", *options) == 1
    shown = capfd.readouterr().err
    assert "No INT8 artifact was written for 'onnx': no labelled images were given" in shown
    assert "naive" in shown
    assert "top-1 agreement" in shown
    assert not (place / "bad.onnx").exists()


def test_without_images(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "export", place / "model.keras", place / "no.onnx", "--precision", "int8") == 2
    assert "--calibration FOLDER" in capfd.readouterr().err
