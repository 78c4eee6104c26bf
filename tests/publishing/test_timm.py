"""timm itself builds what is pushed, and gives the same logits. It is not among this package's own dependencies."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CLASSES

import repvgg
from helpers import infer, random_images, relative_error, trained_like
from hub_server import Hub
from repvgg.publishing.subject import find_subject
from repvgg.publishing.weights import choose_weights, write_weights

timm = pytest.importorskip("timm")
timm_data = pytest.importorskip("timm.data")
torch = pytest.importorskip("torch")

SIDE, RESIZE = 64, 73


def network(name: str, channels: int = 3, **options: Any) -> Any:
    model = trained_like(repvgg.create_model(name, 3, (None, None, channels), **options))
    preprocessing = repvgg.Preprocessing.for_channels(channels, SIDE, RESIZE)
    repvgg.set_metadata(model, class_names=CLASSES, preprocessing=preprocessing)
    return model


def require_same(source: str, model: Any) -> None:
    theirs = timm.create_model(source, pretrained=True).eval()
    images = random_images((2, SIDE, SIDE, model.input_shape[-1]))
    with torch.no_grad():
        logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    expected = infer(model, images)
    error = relative_error(expected, logits)
    print(f"{source}: relative error {error:.1e} of {np.abs(expected).max():.4g}")
    assert error < 1e-5
    told = timm_data.resolve_model_data_config(theirs)
    ours = repvgg.get_metadata(model).preprocessing
    assert ours is not None
    assert (tuple(told["input_size"][1:]), told["interpolation"]) == ((SIDE, SIDE), "bilinear")
    assert (tuple(told["mean"]), tuple(told["std"])) == (ours.mean, ours.std)
    assert math.floor(SIDE / told["crop_pct"]) == RESIZE
    assert tuple(theirs.pretrained_cfg["label_names"]) == CLASSES


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("RepVGG-A0", {"output_stride": 8, "dilate_first": False}),
        ("RepVGG-A0", {"channels": 1, "epsilon": 1e-3}),
        ("RepVGG-A0", {"deploy": True}),
        ("QARepVGG-A0", {}),
        ("MobileOne-S0", {}),
        pytest.param("RepVGG-B1g4", {}, marks=pytest.mark.full),
        pytest.param("RepVGG-D2se", {}, marks=pytest.mark.full),
    ],
)
def test_local_files(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = network(name, **options)
    weights = choose_weights(find_subject(model))
    assert weights.timm_name is not None
    write_weights(weights, tmp_path)
    require_same(f"local-dir:{tmp_path}", model)


def test_the_hub(server: Hub) -> None:
    model = network("RepVGG-A0")
    assert repvgg.push(model, "user/flowers").timm_name == "repvgg_a0"
    require_same("hf-hub:user/flowers", model)


def test_a_classifier_for_other_classes(server: Hub) -> None:
    """What timm does with `classifier` and `first_conv`: fine-tuning on other classes and channels."""
    model = network("RepVGG-A0")
    repvgg.push(model, "user/flowers")
    theirs = timm.create_model("hf-hub:user/flowers", pretrained=True, num_classes=7, in_chans=1)
    assert theirs.get_classifier().out_features == 7
    assert theirs.stem.conv_1x1.conv.weight.shape[1] == 1
