"""Commands say what they have to say, and their libraries say nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import repvgg
from repvgg.cli import terminal
from repvgg.models.random_statistics import randomize_statistics
from sampling import sampled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quiet")
    model = randomize_statistics(repvgg.RepVGG([1, 1, 1, 1], [0.25] * 4, num_classes=2, input_shape=(32, 32, 3)))
    repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(crop=32, resize=32))
    repvgg.save_model(model, folder / "model.keras")
    for ending, target in (("onnx", "onnx"), ("tflite", "litert"), ("xml", "openvino")):
        repvgg.export(model, folder / f"model.{ending}", target)
    Image.new("RGB", (40, 40), "red").save(folder / "red.png")
    return folder


@pytest.mark.parametrize("ending", sampled(["onnx", "tflite", "xml", "keras"], ["tflite", "keras"]))
def test_predict_writes_nothing_to_standard_error(folder: Path, ending: str) -> None:
    command = [sys.executable, "-m", "repvgg", "predict", f"model.{ending}", "red.png", "--format", "csv"]
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert len(finished.stdout.splitlines()) == 3
    # How far a slow machine is, is ours to say.
    assert [line for line in finished.stderr.splitlines() if " so far" not in line] == []


def test_what_libraries_said_comes_back_where_keras_does_not_start(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        os.write(2, b"a line from C++\n")
        raise RuntimeError("no Keras")

    monkeypatch.setattr(terminal, "_import_keras", broken)
    with pytest.raises(RuntimeError, match="no Keras"):
        terminal.start_keras()
    assert capfd.readouterr().err == "a line from C++\n"
