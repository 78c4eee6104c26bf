"""What is in an artifact besides the network, and how it comes into place, or does not."""

import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from exported import CLASSES, OPENED, PAIRS, deployed, small, write
from helpers import random_images
from repvgg.base.errors import FileError, InputError, OutputExistsError, VerificationError
from repvgg.base.files import atomic_output
from repvgg.exporting import export
from repvgg.runners import RUNNERS, load_runner
from repvgg.targets import TARGETS

onnx = pytest.importorskip("onnx")
for module in ("onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_metadata_travel(name: str, precision: str, artifact: Any) -> None:
    model = deployed("plain")
    metadata = load_runner(artifact("plain", name, precision).path).metadata
    assert metadata.form == "deploy"
    assert metadata.class_names == CLASSES
    assert metadata.preprocessing == repvgg.get_metadata(model).preprocessing
    assert metadata.source == "a test"
    assert metadata.precision == precision
    assert (metadata.input, metadata.output) == ("float32", "logits")


def test_a_training_form_is_converted_and_its_verification_travels(tmp_path: Path) -> None:
    model = small()
    result = write(model, tmp_path, "onnx")
    assert result.converted
    verification = load_runner(result.path).metadata.verification
    assert verification is not None
    assert verification["passed"] is True
    assert verification["reference"].endswith("(training form)")
    assert len(verification["blocks"]) == 6
    # The model that was exported is as it was.
    assert repvgg.get_metadata(model).form == "training"
    assert repvgg.get_metadata(model).verification is None


@pytest.mark.parametrize(("name", "precision"), PAIRS)
def test_an_artifact_that_differs_is_not_kept(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that is off by 1 percent in the file, which in float16 is less than what all roundings may add up to."""
    model = keras.models.clone_model(deployed("plain"))
    model.set_weights(deployed("plain").get_weights())
    module = __import__(TARGETS[name].module, fromlist=["write"])
    real = module.write

    def sabotaged(network: Any, path: Path, metadata: Any, settings: Any) -> None:
        kernel = network.get_layer("stage2_block0").kernel
        before = np.array(kernel)
        kernel.assign(before * 1.01)
        real(network, path, metadata, settings)
        kernel.assign(before)

    monkeypatch.setattr(module, "write", sabotaged)
    with pytest.raises(VerificationError, match=r"'model.*' was not kept: .* differ"):
        write(model, tmp_path, name, precision)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", OPENED)
def test_overwriting(name: str, artifact: Any, tmp_path: Path) -> None:
    first = artifact("plain", name)
    shutil.copytree(first.path.parent, tmp_path, dirs_exist_ok=True)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(OutputExistsError, match=r"already exists .* --force"):
        write(deployed("plus"), tmp_path, name)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before
    second = write(deployed("plus"), tmp_path, name, force=True)
    assert second.path == tmp_path / first.path.name
    assert second.size > first.size
    assert second.size == sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert load_runner(second.path)(random_images((1, 64, 64, 3))).shape == (1, 3)


def test_the_weights_beside_an_openvino_model_count_as_there(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"model\.bin' already exists"):
        write(deployed("plain"), tmp_path, "openvino")
    assert [file.name for file in tmp_path.iterdir()] == ["model.bin"]
    write(deployed("plain"), tmp_path, "openvino", force=True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_a_folder_that_is_no_savedmodel_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"is a folder and not a SavedModel, so it is not replaced"):
        write(deployed("plain"), tmp_path, "savedmodel", force=True)
    (tmp_path / "model.onnx").mkdir()
    with pytest.raises(OutputExistsError, match=r"is a folder, and a file was to be written there"):
        write(deployed("plain"), tmp_path, "onnx", force=True)
    (tmp_path / "file").write_text("precious")
    with pytest.raises(OutputExistsError, match=r"is a file, and a folder was to be written there"):
        export(deployed("plain"), tmp_path / "file", "savedmodel", force=True)
    assert (tmp_path / "model" / "thesis.txt").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


def test_two_files_appear_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xml, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    xml.write_text("old graph")
    weights.write_text("old weights")

    def replaced() -> None:
        with atomic_output(xml, ["model.bin"]) as temporary:
            temporary.write_text("new graph")
            temporary.with_suffix(".bin").write_text("new weights")

    real = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if target == xml and self.read_text() == "new graph":
            raise OSError("no space left")
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", failing)
        with pytest.raises(OSError, match="no space left"):
            replaced()
    assert (xml.read_text(), weights.read_text()) == ("old graph", "old weights")
    with pytest.raises(FileNotFoundError), atomic_output(xml, ["model.bin"]) as temporary:
        temporary.write_text("a graph without weights")
    assert (xml.read_text(), weights.read_text()) == ("old graph", "old weights")
    replaced()
    assert (xml.read_text(), weights.read_text()) == ("new graph", "new weights")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]


@pytest.mark.parametrize(
    ("name", "part", "runtime"),
    [
        ("onnx", "model.onnx", "ONNX Runtime"),
        ("openvino", "model.xml", "OpenVINO"),
        ("openvino", "model.bin", "OpenVINO"),
        ("litert", "model.tflite", "LiteRT"),
        ("savedmodel", "model/saved_model.pb", "TensorFlow"),
        ("savedmodel", "model/variables/variables.data-00000-of-00001", "TensorFlow"),
    ],
)
def test_damaged_artifacts(name: str, part: str, runtime: str, artifact: Any, tmp_path: Path) -> None:
    whole_artifact = artifact("plain", name).path
    shutil.copytree(whole_artifact.parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / whole_artifact.name
    whole = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=rf"{runtime} cannot load '.*model"):
        load_runner(path)
    (tmp_path / part).write_bytes(b"")
    with pytest.raises(FileError, match=r"is empty \(0 bytes\)|cannot load"):
        load_runner(path)
    (tmp_path / part).write_bytes(b"something else, and not too short to be looked into at all" * 9)
    with pytest.raises(FileError, match=rf"{runtime} cannot load '.*model"):
        load_runner(path)
    (tmp_path / part).unlink()
    with pytest.raises(FileError):
        load_runner(path)


@pytest.mark.parametrize("ending", [ending for ending in RUNNERS if ending.startswith(".")])
def test_files_that_are_not_there(ending: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=rf"none\{ending}' does not exist"):
        load_runner(tmp_path / f"none{ending}")


def test_paths_that_are_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"is a folder without 'saved_model\.pb'"):
        load_runner(tmp_path)
    with pytest.raises(
        FileError, match=r"ends in none of \.keras, \.onnx, \.tflite, \.xml, \.repvgg, and is not a SavedModel"
    ):
        load_runner(tmp_path / "model.pb")
    (tmp_path / "model.xml").write_text("<net/>")
    with pytest.raises(FileError, match=r"weights file '.*model\.bin' does not exist"):
        load_runner(tmp_path / "model.xml")


def test_an_artifact_of_ours_without_metadata(artifact: Any, tmp_path: Path) -> None:
    """What other tools strip off is missing, and nothing else."""
    path, with_metadata = tmp_path / "model.tflite", artifact("plain", "litert").path.read_bytes()
    path.write_bytes(with_metadata[: with_metadata.rindex(b"PK\x03\x04")])
    runner = load_runner(path)
    assert runner.metadata == repvgg.Metadata()
    assert runner(random_images((1, 64, 64, 3))).shape == (1, 3)


def test_onnx_graph_of_other_makers(tmp_path: Path) -> None:
    """A graph that takes channels last is fed so; nothing of ours is in it."""
    helper = onnx.helper
    value = helper.make_tensor_value_info

    def save(kind: int, name: str) -> Path:
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["x"], ["floats"], to=onnx.TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["floats"], ["y"], axes=[1, 2], keepdims=0),
            ],
            "mean",
            [value("x", kind, ["n", 8, 8, 3])],
            [value("y", onnx.TensorProto.FLOAT, ["n", 3])],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / name)
        return tmp_path / name

    images = random_images((2, 8, 8, 3))
    runner = load_runner(save(onnx.TensorProto.FLOAT, "floats.onnx"))
    assert runner.input_shape == (8, 8, 3)
    np.testing.assert_allclose(runner(images), images.mean((1, 2)), rtol=1e-5, atol=1e-6)
    # Who takes uint8 takes pixels, whether or not it says so in our words.
    pixels = load_runner(save(onnx.TensorProto.UINT8, "pixels.onnx"))
    assert pixels.takes_uint8
    with pytest.raises(InputError, match="takes pixels from 0 to 255 in uint8; these images are in float32"):
        pixels(images)
    with pytest.raises(FileError, match=r"does not take one batch of images\. Its inputs: x .* tensor\(int64\)"):
        load_runner(save(onnx.TensorProto.INT64, "integers.onnx"))
