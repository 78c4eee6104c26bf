"""`config.json` of repositories: timm's own as timm publishes them, ours, and what is neither."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

import repvgg
from repvgg.base.errors import CheckpointError, InputError
from repvgg.base.metadata import Preprocessing
from repvgg.checkpoints.hub import PRETRAINED, imagenet_class_names
from repvgg.checkpoints.hub_config import MOST_BYTES, TIMM_NAMES, HubConfig, timm_builds
from repvgg.checkpoints.published import load_published
from repvgg.checkpoints.repository import Repository, is_repository, parse_repository
from repvgg.core.architecture import PUBLISHED, Adaptation

TIMMS: dict[str, Any] = {
    "architecture": "repvgg_a0",
    "num_classes": 1000,
    "num_features": 1280,
    "pretrained_cfg": {
        "tag": "rvgg_in1k",
        "custom_load": False,
        "input_size": [3, 224, 224],
        "fixed_input_size": False,
        "interpolation": "bilinear",
        "crop_pct": 0.875,
        "crop_mode": "center",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "num_classes": 1000,
        "pool_size": [7, 7],
        "first_conv": ["stem.conv_kxk.conv", "stem.conv_1x1.conv"],
        "classifier": "head.fc",
    },
}
"""What lies in timm/repvgg_a0.rvgg_in1k."""

OURS: dict[str, Any] = {
    **TIMMS,
    "num_classes": 2,
    "label_names": ["cat", "dog"],
    "pretrained_cfg": {**TIMMS["pretrained_cfg"], "tag": None, "num_classes": 2},
}


def read(values: object, folder: Path) -> HubConfig:
    path = folder / "config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return HubConfig.read(path)


def changed(**changes: Any) -> dict[str, Any]:
    """Ours with other values, in whichever of the two tables they stand."""
    inner = {name: value for name, value in changes.items() if name in TIMMS["pretrained_cfg"]}
    return {**OURS, "pretrained_cfg": {**OURS["pretrained_cfg"], **inner}, **changes}


def test_timms_own(tmp_path: Path) -> None:
    config = read(TIMMS, tmp_path)
    assert config == HubConfig("repvgg_a0", 1000, imagenet_class_names(), Preprocessing(224, 256))
    assert config.weights_of == "RepVGG-A0"
    # The single table that timm wrote once.
    flat = {"architecture": "repvgg_a0", "labels": ["cat", "dog"], **TIMMS["pretrained_cfg"], "num_classes": 2}
    assert read(flat, tmp_path).class_names == ("cat", "dog")


def test_timms_names() -> None:
    assert {PRETRAINED[name].partition("/")[2].partition(".")[0] for name in PRETRAINED} == {
        theirs for ours, theirs in TIMM_NAMES.items() if ours.startswith("RepVGG")
    }
    assert TIMM_NAMES["MobileOne-S4"] == "mobileone_s4"


@pytest.mark.parametrize(
    ("config", "written"),
    [
        (
            HubConfig("repvgg_a0", 2, ("cat", "dog"), Preprocessing(96, 110)),
            {"num_classes": 2, "label_names": ["cat", "dog"], "input_size": [3, 96, 96], "pool_size": [3, 3]},
        ),
        (
            HubConfig("mobileone_s0", 2, None, Preprocessing.for_channels(1, 64, 64)),
            {"input_size": [1, 64, 64], "model_args": {"in_chans": 1}, "mean": [0.449], "crop_pct": 1.0},
        ),
        (
            HubConfig("repvgg_b1g4", 2, None, Preprocessing(), Adaptation(output_stride=8, dilate_first=False)),
            {"model_args": {"output_stride": 8}, "pool_size": [28, 28], "crop_pct": 0.875},
        ),
        (
            HubConfig("repvgg_a1", 2, ("ä", "b"), Preprocessing(), PUBLISHED, "QARepVGG-A1", "deploy"),
            {"architecture": "repvgg_a1", "repvgg": {"variant": "QARepVGG-A1", "form": "deploy"}},
        ),
        (HubConfig("repvgg", 2, None, Preprocessing(), Adaptation(stem_strides=1)), {"pool_size": [14, 14]}),
    ],
)
def test_what_we_write(config: HubConfig, written: dict[str, Any], tmp_path: Path) -> None:
    text = config.to_json(num_features=1280, first_conv=["stem.conv_kxk.conv"], classifier="head.fc")
    values = json.loads(text)
    table = {**values["pretrained_cfg"], **values}
    assert {name: table[name] for name in written} == written
    assert (table["interpolation"], table["crop_mode"], table["global_pool"]) == ("bilinear", "center", "avg")
    assert (table["first_conv"], table["classifier"]) == (["stem.conv_kxk.conv"], "head.fc")
    assert read(text, tmp_path) == config


def test_timm_resizes_to_the_same_side() -> None:
    """It rounds down, and for some sides crop / (crop / side) is less than the side."""
    for resize in range(224, 600):
        config = HubConfig("repvgg_a0", 2, None, Preprocessing(224, resize))
        share = json.loads(config.to_json(num_features=1, first_conv=[], classifier=""))["pretrained_cfg"]["crop_pct"]
        assert math.floor(224 / share) == resize
    assert any(math.floor(224 / (224 / resize)) < resize for resize in range(224, 600))


def test_images_that_are_prepared_otherwise(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read(changed(interpolation="bicubic", mean=0.5, std=[0.5]), tmp_path).preprocessing == Preprocessing(
        224, 256, (0.5,) * 3, (0.5,) * 3
    )
    assert "prepares images otherwise (bicubic, center)" in caplog.text
    assert read(changed(input_size=[3, 224, 192]), tmp_path).preprocessing is None
    assert "only square ones" in caplog.text


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    config = read(changed(label_names={"1": "dog\x1b[2J", "0": 7}), tmp_path)
    assert config.class_names == ("7", "dog [2J")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("<html>", "not a description of a network as timm writes it"),
        ("[1, 2]", "it is not a JSON object"),
        ("[" * 100_000, "not a description of a network"),
        ("{}", "not a description of a network as timm writes it: 'architecture'"),
        (" " * (MOST_BYTES + 1), "larger than"),
        (changed(architecture="resnet50"), "called 'resnet50', and these are loaded: repvgg_a0, "),
        (changed(architecture=["repvgg_a0"]), "not a description|called"),
        (changed(num_classes=0), "has no classifier"),
        (changed(num_classes="many"), "not a description"),
        (changed(label_names=["cat"]), "names 1 classes of 2"),
        (changed(label_names={"0": "cat", "2": "dog"}), "not a description"),
        (changed(mean=[0.5, 0.5]), "`mean` and `std` need"),
        (changed(mean="grey"), "not a description"),
        (changed(std=[0, 1, 1]), "`std` must be above 0"),
        (changed(input_size=[3, 0, 0]), "`crop`"),
        (changed(input_size=[3, float("inf"), 1]), "not a description"),
        (changed(crop_pct=float("nan")), "not a description"),
        (changed(crop_pct=1e-300), "prepares images of 2.24e.302 pixels, and 4096 is the limit"),
        (changed(mean=[0, 0, float("inf")]), "not a description"),
        (changed(pretrained_cfg="none"), "not a description"),
        (changed(model_args={"act_layer": "silu"}), "arguments that are not known here: act_layer"),
        (changed(model_args={"output_stride": 5}), "`output_stride` is one of"),
        (changed(repvgg={"variant": "RepVGG-Z9"}), "pushed by a newer version of repvgg"),
        (changed(repvgg={"variant": "RepVGG-A0", "form": "sparse"}), "pushed by a newer version of repvgg"),
    ],
)
def test_what_is_not_a_config(values: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(values, tmp_path)


def test_weights_that_are_others(tmp_path: Path) -> None:
    model = repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=2)
    weights = repvgg.save_checkpoint(model, tmp_path / "model.safetensors", "timm")
    right = HubConfig("repvgg", 2, ("cat", "dog"), Preprocessing())
    assert repvgg.get_metadata(load_published(weights, right, "here")).class_names == ("cat", "dog")
    for config, message in (
        (
            HubConfig("repvgg_a0", 2),
            "those of RepVGG-A0 with 2 classes, and they are those of a network without",
        ),
        (HubConfig("repvgg", 3), "those of a RepVGG with 3 classes, and they are .* with 2 classes"),
        (HubConfig("repvgg", 2, None, Preprocessing.for_channels(1)), "prepares images of 1 channels.* takes 3"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_published(weights, config, "here")


@pytest.mark.parametrize(
    ("variant", "adaptation", "expected"),
    [
        ("RepVGG-A0", PUBLISHED, "repvgg_a0"),
        ("RepVGG-B1g2", PUBLISHED, None),
        (None, PUBLISHED, None),
        ("RepVGG-A0", Adaptation(stem_strides=1), None),
        ("RepVGG-A0", Adaptation(output_stride=16), None),
        ("RepVGG-A0", Adaptation(output_stride=16, dilate_first=False), "repvgg_a0"),
        ("MobileOne-S0", Adaptation(output_stride=16, dilate_first=False), None),
    ],
)
def test_what_timm_builds(variant: str | None, adaptation: Adaptation, expected: str | None) -> None:
    assert timm_builds(variant, adaptation) == expected


def test_repositories() -> None:
    assert parse_repository("hf-hub:timm/repvgg_a0.rvgg_in1k") == Repository("timm/repvgg_a0.rvgg_in1k", "main")
    assert str(parse_repository("hf-hub:user/name@refs/pr/1")) == "hf-hub:user/name@refs/pr/1"
    assert not is_repository("RepVGG-A0")


@pytest.mark.parametrize(
    "text", ["", "name", "user/", "/name", "a/b/c", "../name", "user/..", "user/a--b", "u ser/name", f"user/{'n' * 97}"]
)
def test_what_no_repository_is_called(text: str) -> None:
    with pytest.raises(InputError, match="is called user/name"):
        parse_repository(f"hf-hub:{text}")


@pytest.mark.parametrize("revision", ["", "..", "a/../b", "-f", "a b", "a@b"])
def test_what_no_revision_is_called(revision: str) -> None:
    with pytest.raises(InputError, match="branch, a tag or a commit"):
        parse_repository(f"hf-hub:user/name@{revision}")
