"""From a run to the hub and back, against a server on loopback: the whole way, dry, refused, and never with the token
in what is printed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image
from tiny import CLASSES, KNOWN, PREPROCESSING, make_run, name_tiny, tiny

import repvgg
from helpers import infer, random_images, relative_error
from hub_server import TOKEN, Hub, logged_in, use_cache
from repvgg.base.errors import FileError, InputError, OutputExistsError, VerificationError
from repvgg.models.metadata import get_metadata
from repvgg.publishing import weights
from repvgg.publishing.parcel import OWN_FILES
from repvgg.publishing.run import Push
from repvgg.publishing.subject import find_subject
from repvgg.publishing.weights import choose_weights, write_weights
from repvgg.quantization.qat import prepare_qat

pytest.importorskip("huggingface_hub")
pytest.importorskip("onnxruntime")

FILES = {"model.safetensors", "config.json", "model.keras", "deploy.keras", "model.onnx", "README.md"}
IMAGES = random_images((2, 32, 32, 3))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def pushed(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Push, Hub]:
    """What a run became, and the hub as it was then."""
    with pytest.MonkeyPatch.context() as patch, logged_in(tmp_path_factory.mktemp("cache"), patch) as hub:
        name_tiny(patch)
        return repvgg.push(finished, "user/flowers", license="apache-2.0"), hub


@pytest.fixture
def flowers(server: Hub, pushed: tuple[Push, Hub]) -> Mapping[str, bytes]:
    """The files of user/flowers, which is on the hub."""
    server.repositories.update({name: list(commits) for name, commits in pushed[1].repositories.items()})
    return server.files("user/flowers")


def test_there(pushed: tuple[Push, Hub], flowers: Mapping[str, bytes], finished: Path, tmp_path: Path) -> None:
    done, hub = pushed
    assert set(done.files) == set(done.what) == FILES
    assert done.url == f"{hub.address}/user/flowers"
    assert (done.timm_name, done.left_out) == ("repvgg_tiny", ())
    commits = hub.repositories["user/flowers"]
    assert [one.message for one in commits] == ["initial commit", "RepVGG-tiny in 6 files"]
    assert commits[-1].oid == done.commit
    assert {name: len(content) for name, content in flowers.items() if name in FILES} == done.files
    expected = infer(repvgg.load_model(finished / "best.keras"), IMAGES)
    for name, form in (("model.keras", "training"), ("deploy.keras", "deploy"), ("model.onnx", "deploy")):
        (tmp_path / name).write_bytes(flowers[name])
        loaded = repvgg.load_runner(tmp_path / name)
        assert relative_error(expected, loaded(IMAGES)) < 1e-5
        assert (loaded.metadata.form, loaded.metadata.class_names) == (form, CLASSES)


def test_and_back(flowers: Mapping[str, bytes], finished: Path) -> None:
    model = repvgg.create_model("hf-hub:user/flowers")
    np.testing.assert_array_equal(
        infer(model, IMAGES), infer(repvgg.load_model(finished / "best.keras"), IMAGES), strict=True
    )
    metadata = get_metadata(model)
    assert (metadata.variant, metadata.form, metadata.class_names) == (KNOWN, "training", CLASSES)
    assert (metadata.preprocessing, metadata.source) == (PREPROCESSING, "hf-hub:user/flowers")


def test_back_as_asked(flowers: Mapping[str, bytes]) -> None:
    asked = "hf-hub:user/flowers"
    assert get_metadata(repvgg.create_model(asked, deploy=True)).form == "deploy"
    other = repvgg.create_model(asked, num_classes=7, input_shape=(32, 32, 3))
    assert other.output_shape == (None, 7)
    assert get_metadata(other).class_names is None
    with pytest.raises(InputError, match="brings its own weights"):
        repvgg.create_model(asked, weights="imagenet")


def test_the_card_tells_what_is_everybodys_business(flowers: Mapping[str, bytes]) -> None:
    card = flowers["README.md"].decode()
    for text in (
        'license: "apache-2.0"', "library_name: timm", "value: 0.75", "hf-hub:user/flowers", "75.00 % of 8",
        *(f"`{name}`" for name in FILES - {"README.md"}), "weights: start.keras",
    ):  # fmt: skip
        assert text in card, text
    assert "somebody" not in b" ".join(flowers.values()).decode("latin1")


@pytest.mark.full
def test_every_command_takes_a_repository(
    server: Hub, flowers: Mapping[str, bytes], finished: Path, tmp_path: Path, run: Run
) -> None:
    for index, name in enumerate(CLASSES):
        (tmp_path / "val" / name).mkdir(parents=True)
        Image.new("RGB", (40, 50), (90 * index, 40, 0)).save(tmp_path / "val" / name / "one.png")
    place, photo = "hf-hub:user/flowers", tmp_path / "val" / "rose" / "one.png"
    predicted = run("predict", place, photo, "--format", "csv", "--top", 1)
    assert predicted.output == run("predict", finished / "best.keras", photo, "--format", "csv", "--top", 1).output
    assert predicted.output.splitlines()[1].split(",")[2] in CLASSES
    assert run("evaluate", place, tmp_path / "val").status == 0
    assert run("export", place, tmp_path / "model.onnx").status == 0
    commit = server.repositories["user/flowers"][-1].oid
    verified = run("verify", f"{place}@{commit}", tmp_path / "model.onnx", "--json")
    assert (verified.status, json.loads(verified.output)["passed"]) == (0, True)
    inspected = run("inspect", place)
    assert (inspected.status, "timm" in inspected.output) == (0, True), inspected.errors


def test_revisions(server: Hub, tmp_path: Path) -> None:
    models, commits = [tiny(seed=1), tiny(seed=2)], []
    for number, model in enumerate(models):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_weights(choose_weights(find_subject(model)), folder)
        commits.append(server.add("user/flowers", {file.name: file.read_bytes() for file in folder.iterdir()}).oid)
    for number, revision in ((0, f"@{commits[0]}"), (1, f"@{commits[1]}"), (1, "")):
        loaded = repvgg.create_model(f"hf-hub:user/flowers{revision}")
        np.testing.assert_array_equal(infer(loaded, IMAGES), infer(models[number], IMAGES), strict=True)
    with pytest.raises(FileError, match="has no branch, tag or commit called 'v9'"):
        repvgg.create_model("hf-hub:user/flowers@v9")


def test_a_description_without_end_is_not_downloaded(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repvgg.checkpoints.hub_config.MOST_BYTES", 100)
    server.add("user/x", {"config.json": b" " * 101, "model.safetensors": b"nothing"})
    with pytest.raises(FileError, match=r"'config.json' of 'user/x' has 101 bytes.* It was not downloaded"):
        repvgg.create_model("hf-hub:user/x")
    assert not [path for method, path, _ in server.requests if method == "GET" and path.endswith("config.json")]


def test_weights_are_not_fetched_of_what_is_something_else(server: Hub) -> None:
    server.add("user/x", {"config.json": b'{"architecture": "resnet50"}', "model.safetensors": b"nothing"})
    with pytest.raises(FileError, match="called 'resnet50'"):
        repvgg.create_model("hf-hub:user/x")
    server.add("user/x", {"README.md": b"nothing"})
    with pytest.raises(FileError, match=r"has no file of that name, and 'config.json' and 'model.safetensors'"):
        repvgg.create_model("hf-hub:user/x")
    assert not [path for _, path, _ in server.requests if "safetensors" in path]


def test_a_later_push_leaves_nothing_of_its_own_behind(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    repvgg.push(tiny(), "user/flowers")
    server.add("user/flowers", {**server.files("user/flowers"), "notes.txt": b"mine"})
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = repvgg.push(repvgg.reparameterize(tiny(depths=(1, 1, 1, 1))), "user/flowers")
    assert done.timm_name is None
    unknown, why = done.left_out
    assert unknown.startswith("timm: it does not have this network, so")
    assert "'model.safetensors' has the names of the dialect 'official'" in unknown
    assert why.startswith("'model.onnx': Writing ONNX needs the package 'onnxruntime'")
    assert "repvgg[onnx]" in why
    left = FILES - {"model.onnx", "model.keras"} | {"notes.txt", ".gitattributes"}
    assert set(server.files("user/flowers")) == left
    # Initial, pushed, somebody's own, pushed.
    assert len(server.repositories["user/flowers"]) == 4


def test_private(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repvgg.push(tiny(), "user/secret", private=True)
    assert server.private == {"user/secret"}
    repvgg.create_model("hf-hub:user/secret")
    monkeypatch.delenv("HF_TOKEN")
    use_cache(tmp_path / "empty", monkeypatch)
    with pytest.raises(FileError, match="no such repository, or it is private"):
        repvgg.create_model("hf-hub:user/secret")
    server.add("user/open", {})
    with pytest.raises(InputError, match="everybody can see it; nothing was uploaded"):
        repvgg.push(tiny(), "user/open", private=True, token=TOKEN)
    assert server.files("user/open") == {}


def test_a_dry_run_needs_no_hub(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    result = run("push", finished, "user/flowers", "--dry-run", "--output", tmp_path / "parcel")
    assert result.status == 0
    assert "nothing was uploaded" in result.output
    assert {file.name for file in (tmp_path / "parcel").iterdir()} == FILES
    with pytest.raises(OutputExistsError, match="not an empty folder"):
        repvgg.push(finished, "user/flowers", dry_run=True, output=tmp_path / "parcel")


@pytest.mark.full
def test_a_quantization_aware_run(tmp_path: Path) -> None:
    integers = tmp_path / "run"
    make_run(integers, tiny())
    rounded = prepare_qat(repvgg.load_model(integers / "best.keras"))
    repvgg.save_model(rounded, integers / "best.keras", force=True)
    repvgg.export(repvgg.load_model(integers / "deploy.keras"), integers / "int8.onnx")
    done = repvgg.push(integers, "user/x", dry_run=True)
    assert set(done.files) == FILES - {"model.keras"} | {"int8.onnx"}
    with pytest.raises(InputError, match=r"fake quantization.*the folder of its run"):
        repvgg.push(integers / "best.keras", "user/x", dry_run=True)


@pytest.mark.parametrize(
    ("network", "repository", "error", "message"),
    [
        ("best.keras", "flowers", InputError, "is called user/name"),
        ("best.keras", "user/flowers/more", InputError, "is called user/name"),
        ("best.keras", "../flowers", InputError, "is called user/name"),
        ("best.keras", "user/flowers@v1", InputError, "Leave out '@v1'"),
        ("gone.keras", "user/flowers", FileError, "does not exist"),
        ("gone", "user/flowers", FileError, "not a run's folder"),
        ("history.csv", "user/flowers", FileError, "ends in none of .keras"),
    ],
)
def test_what_is_not_a_push(
    network: str, repository: str, error: type[Exception], message: str, finished: Path, run: Run
) -> None:
    with pytest.raises(error, match=message):
        repvgg.push(finished / network, repository)
    assert run("push", finished / network, repository).status == 2


def test_no_classifier_is_published() -> None:
    with pytest.raises(InputError, match=r"a keras\.Model was expected, and a function came"):
        repvgg.push(infer, "user/x", dry_run=True)
    with pytest.raises(InputError, match="has no classifier"):
        repvgg.push(repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=None), "user/x", dry_run=True)
    wrong = tiny()
    repvgg.set_metadata(wrong, class_names=("one", "two"))
    with pytest.raises(InputError, match="3 outputs and 2 class names"):
        repvgg.push(wrong, "user/x", dry_run=True)


def test_a_push_prints_no_token(server: Hub, finished: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    result = run("push", finished, "user/flowers", "--private")
    assert result.status == 0
    assert f"Published: {server.address}/user/flowers" in result.output
    for name in FILES:
        assert name in result.output
    assert TOKEN not in result.output + result.errors + caplog.text
    assert all(TOKEN.encode() not in content for content in server.files("user/flowers").values())


def test_what_is_not_the_network_is_not_published(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    written = weights.state_dict

    def spoiled(*arguments: Any) -> dict[str, Any]:
        tensors = written(*arguments)
        return {name: value * 1.01 if name == "head.fc.weight" else value for name, value in tensors.items()}

    monkeypatch.setattr(weights, "state_dict", spoiled)
    with pytest.raises(VerificationError, match=r"'model.safetensors' was written and read back.*Nothing is published"):
        repvgg.push(tiny(), "user/x")
    assert server.repositories == {}


def test_no_file_of_a_parcel_is_forgotten() -> None:
    assert set(OWN_FILES) == FILES | {"int8.onnx"}
