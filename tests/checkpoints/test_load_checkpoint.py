"""From files to models: the reference implementations' own files and answers, and every option."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import NETWORKS, network

from helpers import assert_same_values, infer, random_images, relative_error, values_of
from repvgg.base.errors import CheckpointError, FileError, InputError, UnknownNameError
from repvgg.base.metadata import Preprocessing
from repvgg.checkpoints import load_checkpoint, save_checkpoint
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.torch_format.writer import write_torch
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterize
from repvgg.core.architecture import Architecture
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.recover import recover
from repvgg.models.saving import save_model
from sampling import sampled

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"
ROWS = {row["expected"].removesuffix(".npz"): row for row in json.loads((REFERENCE / "index.json").read_text())}
SAMPLE = ("official_train_g2", "plus_train", "timm_train")
LIMIT = 1e-5
"""Of the largest logit: float32 sums in another order differ by some 1e-7 a layer."""


@pytest.mark.backends
@pytest.mark.parametrize("name", sampled(ROWS, SAMPLE))
def test_the_reference_implementations_answers(name: str) -> None:
    row = ROWS[name]
    model = load_checkpoint(REFERENCE / row["file"])
    expected = np.load(REFERENCE / row["expected"])
    images = expected["images_nhwc"]
    outputs = infer(model, images)
    if isinstance(outputs, dict):
        assert {f"logits_{head}" for head in outputs} == set(expected) - {"images_nhwc"}
        for head, logits in outputs.items():
            assert relative_error(expected[f"logits_{head}"], logits) < LIMIT
    else:
        assert relative_error(expected["logits"], outputs) < LIMIT
    if get_metadata(model).form == "training":
        main = expected["logits_main"] if isinstance(outputs, dict) else expected["logits"]
        assert relative_error(main, infer(reparameterize(model), images)) < LIMIT


def test_timms_features_only(tmp_path: Path) -> None:
    """Its `FeatureListNet` joins the names of sequences and leaves the classifier out."""
    source = REFERENCE / "timm_train.safetensors"
    tensors = read_tensors(source).tensors
    features = {
        name.replace("stages.", "stages_", 1): np.asarray(value)
        for name, value in tensors.items()
        if not name.startswith("head.")
    }
    assert any(name.startswith("stages_3.") for name in features)
    write_torch(features, tmp_path / "features.pth")
    model = load_checkpoint(tmp_path / "features.pth")
    whole = load_checkpoint(source)
    kernels = [model.get_layer("stage4_block0"), whole.get_layer("stage4_block0")]
    assert_same_values(*(values_of(layer) for layer in kernels))
    # The stem and four stages, as there.
    assert len(model.output_shape) == 5
    assert get_metadata(model).source == "features.pth (timm-features names, training form)"


def test_what_the_model_says_about_itself() -> None:
    model = load_checkpoint(REFERENCE / "timm_train.safetensors")
    metadata = get_metadata(model)
    assert (metadata.variant, metadata.form) == (None, "training")
    assert metadata.source == "timm_train.safetensors (timm names, training form)"
    # Whoever trained them may have used other images: nothing is claimed.
    assert (metadata.preprocessing, metadata.class_names) == (None, None)
    assert recover(model).architecture == Architecture((2, 2, 3, 1), (0.25,) * 4)


def test_a_named_network_knows_its_name(tmp_path: Path) -> None:
    model = create_model("RepVGG-A0", num_classes=3)
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "file.pth"))
    assert get_metadata(loaded).variant == "RepVGG-A0"
    assert loaded.name == "repvgg_a0"
    assert_same_values(values_of(model), values_of(loaded))


def _shrunk(path: Path, kept: Any, target: Path) -> Path:
    tensors = {name: tensor for name, tensor in read_tensors(path).tensors.items() if kept(name)}
    write_torch(tensors, target)
    return target


def test_repvggplus_without_its_auxiliary_heads(tmp_path: Path) -> None:
    path = _shrunk(REFERENCE / "plus_train.pth", lambda name: "_aux." not in name, tmp_path / "file.pth")
    expected = np.load(REFERENCE / "plus_train.npz")
    model = load_checkpoint(path)
    assert relative_error(expected["logits_main"], infer(model, expected["images_nhwc"])) < LIMIT


def test_a_feature_extractor_in_a_file(tmp_path: Path) -> None:
    path = _shrunk(REFERENCE / "official_train.pth", lambda name: not name.startswith("linear"), tmp_path / "file.pth")
    assert set(infer(load_checkpoint(path), random_images((1, 32, 32, 3)))) == {f"stage{stage}" for stage in range(5)}
    assert load_checkpoint(path, num_classes=4).output_shape == (None, 4)


@pytest.mark.parametrize("name", list(NETWORKS))
def test_another_number_of_classes_replaces_the_heads_only(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    original = network(name)
    path = save_checkpoint(original, tmp_path / "file.pth")
    with caplog.at_level(logging.WARNING, "repvgg"):
        model = load_checkpoint(path, num_classes=4)
    text = "new classifier of 4 classes with fresh weights, for the file's of 6"
    assert text in caplog.text
    assert text in str(get_metadata(model).source)
    same = {layer.name for layer in original.layers if layer.name not in ("classifier", *recover(original).auxiliary)}
    for layer_name in same:
        assert_same_values(values_of(original.get_layer(layer_name)), values_of(model.get_layer(layer_name)))
    for head, layer in recover(model).auxiliary.items():
        assert_same_values(values_of(original.get_layer(head).conv), values_of(layer.conv))
        assert layer.classifier.units == 4
    assert recover(model).num_classes == 4


def test_the_same_number_of_classes_keeps_the_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = network("plain")
    model = load_checkpoint(save_checkpoint(original, tmp_path / "file.pth"), num_classes=6)
    assert_same_values(values_of(original), values_of(model))
    assert not caplog.records


def test_forms() -> None:
    with pytest.raises(CheckpointError, match=r"plain network trains worse.*from_deploy='expand'"):
        load_checkpoint(REFERENCE / "official_deploy.pth", form="training")
    with pytest.raises(CheckpointError, match=r"in deploy form.*repvgg\.reparameterize"):
        load_checkpoint(REFERENCE / "official_train.pth", form="deploy")
    with pytest.raises(InputError, match="Leave out one"):
        load_checkpoint(REFERENCE / "official_deploy.pth", form="deploy", from_deploy="expand")
    with pytest.raises(InputError, match="'fold'"):
        load_checkpoint(REFERENCE / "official_deploy.pth", from_deploy="fold")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'train'"):
        load_checkpoint(REFERENCE / "official_deploy.pth", form="train")  # type: ignore[arg-type]
    assert get_metadata(load_checkpoint(REFERENCE / "official_deploy.pth", form="deploy")).form == "deploy"
    assert get_metadata(load_checkpoint(REFERENCE / "official_train.pth", form="training")).form == "training"


def test_channels_are_those_of_the_file(tmp_path: Path) -> None:
    path = save_checkpoint(network("plain", channels=1), tmp_path / "file.pth")
    assert load_checkpoint(path).input_shape == (None, None, None, 1)
    assert load_checkpoint(path, input_shape=(64, 48, 1)).input_shape == (None, 64, 48, 1)
    with pytest.raises(CheckpointError, match=r"of 1 channels.*says 3\. Use input_shape=\(None, None, 1\)"):
        load_checkpoint(path, input_shape=(None, None, 3))


def test_half_precision_is_widened_and_double_precision_kept(tmp_path: Path) -> None:
    for dtype, widened in (("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")):
        original = network("plain", dtype=dtype)
        model = load_checkpoint(save_checkpoint(original, tmp_path / f"{dtype}.pth"))
        assert {str(variable.dtype) for variable in model.weights} == {widened}
        expected = [value.astype(widened) for value in values_of(original)]
        assert_same_values(expected, values_of(model))


def test_a_policy_of_ones_own() -> None:
    model = load_checkpoint(REFERENCE / "official_train.pth", dtype="mixed_bfloat16")
    assert model.get_layer("stage0").compute_dtype == "bfloat16"
    assert model.get_layer("stage0").variable_dtype == "float32"


def test_an_entry_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="no entry in the checkpoint called 'ema'"):
        load_checkpoint(REFERENCE / "official_train_ddp.pth", entry="ema")
    load_checkpoint(REFERENCE / "official_train_ddp.pth", entry="model")


def test_weights_do_not_hang_on_the_file(tmp_path: Path) -> None:
    original = network("plain")
    path = save_checkpoint(original, tmp_path / "file.pth")
    model = load_checkpoint(path)
    with path.open("r+b") as handle:
        handle.write(bytes(path.stat().st_size))
    assert_same_values(values_of(original), values_of(model))


def test_keras_files(tmp_path: Path) -> None:
    original = network("plain")
    set_metadata(original, class_names=tuple("abcdef"), preprocessing=Preprocessing(64, 64), source="a test")
    path = save_model(original, tmp_path / "model.keras")
    same = load_checkpoint(path)
    assert_same_values(values_of(original), values_of(same))
    assert get_metadata(same) == get_metadata(original)
    other = load_checkpoint(path, num_classes=2)
    assert_same_values(values_of(original.get_layer("stage0")), values_of(other.get_layer("stage0")))
    metadata = get_metadata(other)
    assert (metadata.class_names, metadata.preprocessing) == (None, Preprocessing(64, 64))
    assert "model.keras" in str(metadata.source)
    with pytest.raises(CheckpointError, match="in deploy form"):
        load_checkpoint(path, form="deploy")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        load_checkpoint(tmp_path / "none.pth")
    (tmp_path / "page.pth").write_text("<html>")
    with pytest.raises(CheckpointError, match="web page"):
        load_checkpoint(tmp_path / "page.pth")


@pytest.fixture(scope="module")
def a0(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = create_model("RepVGG-A0", num_classes=3)
    return model, save_checkpoint(model, tmp_path_factory.mktemp("a0") / "a0.safetensors", "timm")


class TestCreateModel:
    """`create_model(weights=path)`."""

    def test_same_form(self, a0: tuple[Any, Path]) -> None:
        model, path = a0
        assert_same_values(values_of(model), values_of(create_model("RepVGG-A0", 3, weights=path)))

    def test_training_weights_for_the_deploy_form(self, a0: tuple[Any, Path]) -> None:
        model, path = a0
        deployed = create_model("RepVGG-A0", 3, (64, 64, 3), deploy=True, weights=str(path))
        assert get_metadata(deployed).form == "deploy"
        assert get_metadata(deployed).source == "a0.safetensors (timm names, training form), converted"
        images = random_images((1, 64, 64, 3))
        assert relative_error(infer(model, images), infer(deployed, images)) < 1e-4

    def test_features(self, a0: tuple[Any, Path]) -> None:
        model, path = a0
        features = create_model("RepVGG-A0", None, weights=path)
        assert set(features.output) == {f"stage{stage}" for stage in range(5)}
        for name in ("stage0", "stage4_block0"):
            assert_same_values(values_of(model.get_layer(name)), values_of(features.get_layer(name)))

    def test_another_head(self, a0: tuple[Any, Path], caplog: pytest.LogCaptureFixture) -> None:
        assert create_model("RepVGG-A0", 5, weights=a0[1]).output_shape == (None, 5)
        assert "new classifier of 5 classes" in caplog.text

    def test_another_network(self, a0: tuple[Any, Path]) -> None:
        with pytest.raises(CheckpointError) as caught:
            create_model("RepVGG-B0", 3, weights=a0[1])
        assert "Expected 4-6-16-1 blocks, 64-128-256-1280 channels" in str(caught.value)
        assert "found 2-4-14-1 blocks, 48-96-192-1280 channels, which is RepVGG-A0" in str(caught.value)

    def test_deploy_weights(self, tmp_path: Path) -> None:
        model = create_model("RepVGG-A0", 3, deploy=True)
        path = save_checkpoint(model, tmp_path / "a0.pth")
        assert_same_values(values_of(model), values_of(create_model("RepVGG-A0", 3, deploy=True, weights=path)))
        with pytest.raises(CheckpointError, match="trains worse"):
            create_model("RepVGG-A0", 3, weights=path)

    def test_keras_weights(self, tmp_path: Path) -> None:
        model = create_model("RepVGG-A0", 3)
        path = save_model(model, tmp_path / "a0.keras")
        other = create_model("RepVGG-A0", 7, weights=path)
        assert_same_values(values_of(model.get_layer("stage1_block0")), values_of(other.get_layer("stage1_block0")))

    def test_no_weights_file(self) -> None:
        with pytest.raises(FileError, match=r"no weights file 'imagnet'.*'imagenet' or a file"):
            create_model("RepVGG-A0", weights="imagnet")
