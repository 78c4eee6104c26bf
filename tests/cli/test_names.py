"""Networks by name wherever a file of one goes."""

import json
import time
from pathlib import Path

import pytest
from command_line import Run, runner
from PIL import Image

import repvgg
from repvgg.base.errors import UnknownNameError
from repvgg.checkpoints import hub
from repvgg.models.random_statistics import randomize_statistics


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the hub would give for RepVGG-A0, and photos."""
    folder = tmp_path_factory.mktemp("weights")
    repvgg.save_checkpoint(randomize_statistics(repvgg.create_model("RepVGG-A0")), folder / "a0.safetensors", "timm")
    for name in ("tench", "goldfish"):
        (folder / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), "red").save(folder / "val" / name / "one.png")
    return folder


@pytest.fixture
def published(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hub, "fetch", lambda name: {"RepVGG-A0": weights / "a0.safetensors"}[name])
    return weights


def test_any_case() -> None:
    assert repvgg.get_variant("repvgg-b1G4").name == "RepVGG-B1g4"
    with pytest.raises(UnknownNameError, match="Did you mean RepVGG-A0"):
        repvgg.get_variant("repvgg-a")


def test_predict_and_evaluate_published_weights(run: Run, published: Path) -> None:
    photo = published / "val" / "tench" / "one.png"
    by_name = run("predict", "repvgg-a0", photo, "--format", "csv", "--top", 1)
    assert by_name.status == 0
    from_file = run("predict", published / "a0.safetensors", photo, "--format", "csv", "--top", 1)
    # The same answer; a name knows the classes, a checkpoint does not.
    place = hub.imagenet_class_names().index(by_name.output.splitlines()[1].split(",")[2])
    assert from_file.output.splitlines()[1].split(",")[2] == str(place)
    refused = run("evaluate", "repvgg-a0", published / "val")
    assert (refused.status, "998 more" in refused.sentence or "missing: " in refused.sentence) == (2, True)


def test_export_and_verify_random_weights(run: Run, tmp_path: Path) -> None:
    artifact = tmp_path / "a0.onnx"
    assert run("export", "repvgg-a0", artifact, "--random-weights", "--size", 32).status == 0
    verified = run("verify", "RepVGG-A0", artifact, "--random-weights", "--json")
    report = json.loads(verified.output)
    # The same weights in another process, or this would be a difference of order 1.
    assert (verified.status, report["passed"]) == (0, True)
    assert report["max_relative_error"] < 1e-5
    metadata = repvgg.load_runner(artifact).metadata
    assert (metadata.variant, metadata.class_names) == ("RepVGG-A0", None)


def test_convert_a_name(run: Run, published: Path, tmp_path: Path) -> None:
    result = run("convert", "repvgg-A0", tmp_path / "a0.keras", "--deploy")
    assert result.status == 0
    metadata = repvgg.get_metadata(repvgg.load_model(tmp_path / "a0.keras"))
    assert (metadata.form, metadata.class_names) == ("deploy", hub.imagenet_class_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "RepVGG-A9", "one.png"], "There is no file or network called 'RepVGG-A9'. Did you mean RepVGG-A"),
        (["predict", "gone.keras", "one.png"], "The network 'gone.keras' does not exist"),
        (["predict", "RepVGG-B2g2", "one.png"], "no pretrained weights of RepVGG-B2g2 on the hub"),
        (["verify", "a0.safetensors", "RepVGG-A9"], "There is no file or network called 'RepVGG-A9'"),
        (["verify", "a0.safetensors", "a0.safetensors", "--random-weights"], "networks given by name"),
        (["export", "a0.safetensors", "x.onnx", "--random-weights"], "networks given by name"),
        (["convert", "RepVGG-A0", "x.keras", "--entry", "ema"], "'RepVGG-A0' is a name"),
        (["benchmark", "resnet-5"], "Did you mean ResNet-50"),
    ],
)
def test_mistakes(run: Run, weights: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(weights)
    Image.new("RGB", (40, 50), "red").save("one.png")
    monkeypatch.setattr("repvgg.cli.terminal.start_keras", lambda: pytest.fail("Keras was started for a mistake."))
    result = run(*arguments)
    assert result.status == 2
    assert message in result.sentence


def test_without_a_connection_a_name_is_one_sentence_at_once(run: Run, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        # Nothing listens there.
        template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        begin = time.monotonic()
        result = run("fetch", "repvgg-a0")
        # Tries of huggingface_hub's own would add up to 23 seconds of waiting.
        assert time.monotonic() - begin < 15
    assert result.status == 2
    assert "(timm/repvgg_a0.rvgg_in1k) could not be had: http://127.0.0.1:9 cannot be reached" in result.sentence
    assert result.errors.count("\n") == 1
