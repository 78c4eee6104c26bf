"""What is refused before anything is written, in one sentence each; and the command line."""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from exported import deployed, small, write
from repvgg.base.errors import InputError, MissingDependencyError, UnknownNameError
from repvgg.cli import main
from repvgg.exporting import export
from repvgg.runners import RUNNERS, load_runner
from repvgg.targets import TARGETS, format_of
from repvgg.verification import TOLERANCES

for module in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)


def test_every_target_has_a_runner_and_every_precision_a_tolerance() -> None:
    for target in TARGETS.values():
        # Machine code is not opened by its ending: whoever loads it runs it.
        assert ((target.suffix or "saved_model.pb") in RUNNERS) != target.machine_code
    precisions = {precision for target in TARGETS.values() for precision in target.precisions}
    assert {precision for precision in precisions if precision.startswith("float")} <= set(TOLERANCES)


@pytest.mark.parametrize(
    ("name", "target", "settings", "message"),
    [
        ("model.onnx", "onnx", {"precision": "int4"}, r"'onnx' is written in .*float32.*; 'int4' was asked for"),
        ("model", "savedmodel", {"precision": "float16"}, r"'savedmodel' is written in float32; 'float16' was"),
        ("model.onnx", "onnx", {"calibration": np.zeros((1, 8, 8, 3))}, r"`calibration` is for integer precisions"),
        ("model.pb", "onnx", {}, r"format 'onnx' ends in '\.onnx'\. Received: 'model\.pb'"),
        ("model.onnx", "openvino", {}, r"format 'openvino' ends in '\.xml'\. Received: 'model\.onnx'"),
        ("model.onnx", "savedmodel", {}, r"'savedmodel' is a folder, and 'model\.onnx' ends as a file of another"),
    ],
)
def test_refusals(name: str, target: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(deployed("plain"), tmp_path / name, target, **settings)
    assert list(tmp_path.iterdir()) == []


def test_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"no export format called 'onxx'\. Did you mean onnx"):
        export(deployed("plain"), tmp_path / "model.onnx", "onxx")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("onnx", "onnx", "onnx"), ("openvino", "openvino", "openvino"), ("litert", "ai_edge_litert", "litert")],
)
def test_a_missing_package_is_named(
    name: str, module: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [loaded for loaded in sys.modules if loaded.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)

    class Absent:
        def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
            if fullname.split(".", maxsplit=1)[0] == module:
                raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=rf"not installed: pip install 'repvgg\[{extra}\]'"):
        write(deployed("plain"), tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_weights_that_float16_cannot_hold(tmp_path: Path) -> None:
    model = repvgg.reparameterize(small())
    kernel, bias = model.get_layer("classifier").get_weights()
    bias[1] = 1e5
    model.get_layer("classifier").set_weights([kernel, bias])
    for name in ("onnx", "openvino", "litert"):
        with pytest.raises(InputError, match=r"'classifier/bias' has values above 65504, which float16 cannot hold"):
            write(model, tmp_path, name, "float16")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("a.onnx", "onnx"),
        ("b.c.xml", "openvino"),
        ("a.tflite", "litert"),
        ("folder", "savedmodel"),
        ("a.keras", "keras"),
    ],
)
def test_format_from_the_ending(path: str, name: str) -> None:
    assert format_of(Path(path)) == name


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    repvgg.save_model(deployed("plain"), folder / "model.keras")
    repvgg.save_checkpoint(small(), folder / "model.pth")
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setattr(sys, "argv", ["repvgg", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return int(stopped.value.code or 0), captured.out, captured.err

    return call


@pytest.mark.parametrize("ending", ["onnx", "xml", "tflite", "", "keras"])
def test_command_takes_the_format_from_the_ending(run, source: Path, tmp_path: Path, ending: str) -> None:  # type: ignore[no-untyped-def]
    output = tmp_path / ("model." + ending).rstrip(".")
    status, text, _ = run(source / "model.keras", output)
    assert status == 0
    assert "was converted first" not in text
    assert "agree" in text
    assert load_runner(output).metadata.form == "deploy"


def test_command_with_options_and_a_checkpoint(run, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, text, _ = run(
        source / "model.pth", tmp_path / "m.tflite", "--precision", "float16", "--size", "40x56", "--batch", 2
    )
    assert status == 0
    assert "is in training form; it was converted first" in " ".join(text.split())
    runner = load_runner(tmp_path / "m.tflite")
    assert (runner.batch_size, runner.input_shape) == (2, (40, 56, 3))
    assert runner.metadata.precision == "float16"
    status, _, _ = run(source / "model.keras", tmp_path / "m.onnx", "--size", 64, "--softmax", "--with-preprocessing")
    assert status == 0
    runner = load_runner(tmp_path / "m.onnx")
    assert runner.input_shape == (64, 64, 3)
    assert runner.gives_probabilities
    assert runner.takes_uint8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.pb"], "The ending of 'm.pb' tells no format. Known: .keras (keras), .onnx (onnx)"),
        (["m.onnx", "--size", "huge"], "--size is a number of pixels such as 224, or height and width"),
        (["m.onnx", "--precision", "float8"], "'float8' was asked for"),
        (["m.xml", "--format", "onnx"], "ends in '.onnx'. Received: 'm.xml'"),
        (["m.keras", "--softmax"], "holds the model as it is"),
    ],
)
def test_command_refuses(
    run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(source / "model.keras", *arguments)
    assert status == 2
    assert message in " ".join(errors.split())
    assert list(tmp_path.iterdir()) == []


def test_int8_of_a_segmentation_network_is_refused_by_name(tmp_path: Path) -> None:
    inputs = keras.Input((24, 32, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(5, 1)(inputs), name="maps")
    images = np.zeros((2, 24, 32, 3), np.float32)
    with pytest.raises(InputError, match=r"INT8 is for classifiers, .* 'maps' gives \(None, 24, 32, 5\)"):
        repvgg.export(model, tmp_path / "maps.onnx", precision="int8", calibration=images)
    assert list(tmp_path.iterdir()) == []
