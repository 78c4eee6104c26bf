"""The command line: what it prints, its exit status, and one clear sentence for every mistake."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from command_line import Run, runner
from PIL import Image

import repvgg
from helpers import trained_like


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "100")
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in both forms, ONNX, one that differs, and images."""
    folder = tmp_path_factory.mktemp("cli")
    model = trained_like(repvgg.RepVGG([1, 1, 2, 1], [0.25] * 4, num_classes=3, input_shape=(32, 32, 3)))
    preprocessing = repvgg.Preprocessing(crop=32, resize=36)
    repvgg.set_metadata(model, class_names=("ant", "bee", "cat"), preprocessing=preprocessing)
    repvgg.save_model(model, folder / "training.keras")
    deployed = repvgg.reparameterize(model)
    repvgg.save_model(deployed, folder / "deploy.keras")
    repvgg.export(deployed, folder / "model.onnx")
    kernel = deployed.get_layer("stage3_block1").kernel
    kernel.assign(kernel * 1.5)
    repvgg.save_model(deployed, folder / "wrong.keras")
    (folder / "images").mkdir()
    for index, color in enumerate(("red", "green", "blue")):
        Image.new("RGB", (50 + index, 40), color).save(folder / "images" / f"{color}.png")
    (folder / "text.jpg").write_text("no image")
    (folder / "half.keras").write_bytes((folder / "training.keras").read_bytes()[:5000])
    return folder


def test_list(run) -> None:  # type: ignore[no-untyped-def]
    result = run("list")
    assert result.status == 0
    for name in repvgg.list_variants():
        assert name in result.output
    assert "RepVGG-A0 8.31 9.11 1.36 0.75 224 72.41 120 3256" in " ".join(result.output.split())
    rows = json.loads(run("list", "--json").output)
    assert rows[0]["deploy_parameters"] == 8_309_384
    assert all(row["source"] for row in rows)


def test_list_loads_no_framework() -> None:
    code = (
        "import sys; sys.argv = ['repvgg', 'list']\n"
        "from repvgg.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'tensorflow', 'jax', 'torch', 'keras'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"


def test_inspect_a_variant(run) -> None:  # type: ignore[no-untyped-def]
    result = run("inspect", "RepVGG-A0")
    assert result.status == 0
    assert "stage3_block1-13 14 192>192 1 1 3 4.81M 4.32M 845 376 503" in " ".join(result.output.split())
    assert "9,108,968" in result.output
    assert "8,309,384" in result.output
    data = json.loads(run("inspect", "RepVGG-B1g4", "--size", 64, "--classes", 7, "--json").output)
    assert data["blocks"][2]["groups"] == 4
    assert data["blocks"][0]["output_size"] == [32, 32]
    assert data["deploy_parameters"] == 36_125_416 - 993 * 2049


@pytest.mark.parametrize(("name", "form"), [("training.keras", "training"), ("deploy.keras", "deploy")])
def test_inspect_a_file(run, folder: Path, name: str, form: str) -> None:  # type: ignore[no-untyped-def]
    data = json.loads(run("inspect", folder / name, "--json").output)
    assert data["form"] == form
    assert data["class names"] == "ant, bee, cat"
    assert [block["filters"] for block in data["blocks"]] == [16, 16, 32, 64, 64, 128]


def test_convert(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("convert", folder / "training.keras", tmp_path / "new.keras")
    assert result.status == 0
    assert "agree" in result.output
    metadata = repvgg.get_metadata(repvgg.load_model(tmp_path / "new.keras"))
    assert metadata.form == "deploy"
    assert metadata.class_names == ("ant", "bee", "cat")
    assert metadata.verification is not None
    assert metadata.verification["passed"] is True


def test_verify_passes(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    picture = tmp_path / "error.png"
    result = run("verify", folder / "training.keras", folder / "deploy.keras", "--picture", picture)
    assert result.status == 0
    assert "agree" in result.output
    assert "stage3_block1" in result.output
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 500
    data = json.loads(
        run("verify", folder / "training.keras", folder / "model.onnx", "--images", folder / "images", "--json").output
    )
    assert data["images"] == 3
    assert data["passed"] is True


def test_verify_fails_and_names_the_guilty_block(run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("verify", folder / "training.keras", folder / "wrong.keras", "--json")
    assert result.status == 1
    blocks = json.loads(result.output)["blocks"]
    assert [row["name"] for row in blocks if row["relative_error"] > 1e-4] == ["stage3_block1"]
    assert "differ" in run("verify", folder / "training.keras", folder / "wrong.keras").output


def test_predict(run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    table = run("predict", folder / "model.onnx", folder / "images")
    assert table.status == 0
    assert "red.png" in table.output
    rows = list(
        csv.DictReader(io.StringIO(run("predict", folder / "model.onnx", folder / "images", "--format", "csv").output))
    )
    assert len(rows) == 9
    assert {row["class"] for row in rows} == {"ant", "bee", "cat"}
    found = json.loads(
        run("predict", folder / "training.keras", folder / "images", "--format", "json", "--top", 1).output
    )
    from_keras = [row["classes"][0]["class"] for row in found]
    assert from_keras == [row["class"] for row in rows if row["rank"] == "1"]


def test_predict_writes_files(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    table, lines = tmp_path / "found.csv", tmp_path / "found.jsonl"
    printed = run("predict", folder / "model.onnx", folder / "images", "--format", "csv").output
    result = run("predict", folder / "model.onnx", folder / "images", "--output", table)
    assert result.status == 0
    assert "(3 images)" in result.output
    assert table.read_text() == printed
    assert run("predict", folder / "model.onnx", folder / "images", "--output", lines, "--top", 1).status == 0
    assert [len(json.loads(line)["classes"]) for line in lines.read_text().splitlines()] == [1, 1, 1]
    array = tmp_path / "found.json"
    assert run("predict", folder / "model.onnx", folder / "images", "--output", array, "--top", 1).status == 0
    assert json.loads(array.read_text()) == [json.loads(line) for line in lines.read_text().splitlines()]
    assert run("predict", folder / "model.onnx", folder / "images", "--output", table).status == 2
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_text("no image")
    stopped = run(
        "predict", folder / "model.onnx", tmp_path / "bad", folder / "images", "--strict", "--output", "x.csv"
    )
    assert stopped.status == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad", "found.csv", "found.json", "found.jsonl"]


def test_predict_leaves_out_what_is_no_image(run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("predict", folder / "model.onnx", folder / "text.jpg", folder / "images", "--format", "jsonl")
    assert result.status == 1
    assert [Path(json.loads(line)["image"]).name for line in result.output.splitlines()] == [
        "blue.png",
        "green.png",
        "red.png",
    ]
    assert "text.jpg' cannot be read as an image" in result.errors
    assert "1 of 4 files could not be read" in result.errors


def test_table_columns_are_stable(run, folder: Path) -> None:  # type: ignore[no-untyped-def]
    header, *rows = run("predict", folder / "model.onnx", folder / "images").output.splitlines()
    assert len(rows) == 3
    column = header.index("class")
    for row in rows:
        assert row[column : column + 3] in ("ant", "bee", "cat")
        assert row[: column - 2].rstrip().endswith(".png")
        assert row.count("%") == 3


def test_checkpoints_run_wherever_a_network_is_named(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Same answers; a checkpoint knows no class names, so classes have numbers."""
    repvgg.save_checkpoint(repvgg.load_model(folder / "deploy.keras"), tmp_path / "deploy.safetensors")
    arguments = (folder / "images", "--format", "jsonl", "--top", 1)
    # A checkpoint carries no preprocessing: ImageNet's, which a network of any image size takes.
    found = json.loads(run("predict", tmp_path / "deploy.safetensors", *arguments).output.splitlines()[0])
    assert found["classes"][0]["class"] in ("0", "1", "2")
    verified = run("verify", folder / "deploy.keras", tmp_path / "deploy.safetensors", "--json")
    assert verified.status == 0
    assert json.loads(verified.output)["max_absolute_error"] < 1e-5


def test_evaluate(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for name, color in (("ant", "red"), ("bee", "green"), ("cat", "blue")):
        (tmp_path / "data" / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), color).save(tmp_path / "data" / "val" / name / "one.png")
    result = run("evaluate", folder / "model.onnx", tmp_path / "data", "--picture", tmp_path / "report.png")
    assert result.status == 0
    for text in ("top-1", "expected calibration error", "3 in 3 classes", "images/s"):
        assert text in result.output
    assert (tmp_path / "report.png").exists()
    data = json.loads(run("evaluate", folder / "training.keras", tmp_path / "data", "--json").output)
    assert [row["name"] for row in data["classes"]] == ["ant", "bee", "cat"]
    assert f"{data['top1']:.2%}" in result.output

    (tmp_path / "data" / "val" / "ant" / "two.png").write_text("no image")
    broken = run("evaluate", folder / "model.onnx", tmp_path / "data", "--csv", tmp_path / "classes.csv")
    assert broken.status == 1
    assert "two.png' cannot be read as an image" in " ".join(broken.errors.split())
    rows = list(csv.DictReader(io.StringIO((tmp_path / "classes.csv").read_text())))
    assert [(row["class"], row["images"]) for row in rows] == [("ant", "1"), ("bee", "1"), ("cat", "1")]
    assert [[int(row[f"answer {name}"]) for name in ("ant", "bee", "cat")] for row in rows] == data["confusion"]
    assert run("evaluate", folder / "model.onnx", tmp_path / "data", "--strict").status == 2


def test_export(run, folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    result = run("export", folder / "training.keras", tmp_path / "m.onnx")
    assert result.status == 0
    assert "was converted first" in result.output
    assert (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "RepVGG-A9"], "There is no variant called 'RepVGG-A9'. Did you mean RepVGG-A"),
        (["inspect", "nothing.keras"], "does not exist"),
        (["inspect", "half.keras"], "is not a Keras model, or a truncated one"),
        (["inspect", "text.jpg"], "of an unknown kind"),
        (["convert", "deploy.keras", "x.keras"], "contains no re-parameterizable block"),
        (["convert", "training.keras", "deploy.keras"], "already exists and would be overwritten"),
        (["convert", "training.keras", "x.h5"], "saved as '.keras'. Received: 'x.h5'"),
        (["verify", "training.keras", "text.jpg"], "ends in none of .keras, .onnx"),
        (["verify", "training.keras", "deploy.keras", "--images", "text.jpg"], "cannot be read as an image"),
        (["predict", "model.onnx", "text.jpg"], "cannot be read as an image"),
        (["predict", "model.onnx", "nowhere"], "does not exist"),
        (["predict", "text.jpg", "images"], "'text.jpg' ends in none of .keras, .onnx"),
        (["predict", "model.onnx", "images", "--output", "x.txt"], "The ending of 'x.txt' tells no format"),
        (["predict", "model.onnx", "images", "--output", "x.csv", "--format", "table"], "A table is for the terminal"),
        (["predict", "model.onnx", "images", "--output", "x.csv", "--format", "json"], "'x.csv' would hold json"),
        (["evaluate", "model.onnx", "nowhere"], "does not exist"),
        (["evaluate", "model.onnx", "images"], "missing: ant, bee, cat"),
        (["export", "training.keras", "x.pb"], "The ending of 'x.pb' tells no format"),
        (["export", "training.keras", "x.tflite", "--format", "tflight"], "no export format called 'tflight'"),
        (["demo", "--output", "images"], "already exists"),
        (["lsit"], "No such command 'lsit'"),
        (["list", "--jsno"], "No such option"),
    ],
)
def test_mistakes(run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}

    result = run(*arguments)

    assert result.status == 2
    # A box of typer's may wrap its text.
    assert message in " ".join(result.errors.replace("│", "").split())
    assert "Traceback" not in result.errors
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_a_segmentation_network_is_refused_by_what_it_gives(
    run: Run, folder: Path, tmp_path: Path, command: str
) -> None:
    inputs = keras.Input((24, 32, 3))
    keras.Model(inputs, keras.layers.Conv2D(5, 1)(inputs), name="maps").save(tmp_path / "maps.keras")
    for name in ("ant", "bee"):
        (tmp_path / "data" / name).mkdir(parents=True)
        shutil.copy(folder / "images" / "red.png", tmp_path / "data" / name)
    result = run(command, tmp_path / "maps.keras", tmp_path / "data")
    assert result.status == 2
    assert "is not a classifier: its output has the shape (1, 24, 32, 5)" in result.sentence


def test_version_and_help(run) -> None:  # type: ignore[no-untyped-def]
    assert run("--version").output == f"repvgg {repvgg.__version__}\n"
    help_text = run("--help").output
    for command in ("list", "inspect", "demo", "evaluate", "predict", "convert", "verify", "export"):
        assert f"│ {command}" in help_text


@pytest.mark.parametrize("command", ["list", "train", "predict"])
def test_a_misspelt_backend_is_one_sentence(run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("KERAS_BACKEND", "foo")
    result = run(command, "flowers")
    assert result.status == 2
    assert result.errors.strip() == (
        "Error: The environment variable KERAS_BACKEND is 'foo', and repvgg runs on tensorflow, jax, torch. "
        "Set it to one of them, or unset it."
    )


def test_a_misspelt_backend_in_keras_own_settings(tmp_path: Path) -> None:
    for name, message in (
        ("foo", "Unable to import backend"),
        ("numpy", "set to run on 'numpy', which repvgg cannot use"),
    ):
        (tmp_path / "keras.json").write_text(json.dumps({"backend": name}))
        environment = {**os.environ, "KERAS_HOME": str(tmp_path)}
        environment.pop("KERAS_BACKEND")
        finished = subprocess.run(
            [sys.executable, "-m", "repvgg", "shard", tmp_path, tmp_path / "out"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 2
        assert message in finished.stderr
        assert "Traceback" not in finished.stderr
        assert "keras.json" in finished.stderr
