"""Which form and whose names weights get, and that they come back as the network they were."""

from pathlib import Path
from typing import Any

import pytest
from tiny import CLASSES, KNOWN, OTHER_BLOCKS, tiny

from helpers import infer, random_images, relative_error
from repvgg.checkpoints.hub_config import HubConfig
from repvgg.checkpoints.published import load_published
from repvgg.core.architecture import SqueezeExcite
from repvgg.models.metadata import get_metadata
from repvgg.publishing.subject import find_subject
from repvgg.publishing.weights import choose_weights, write_weights

AFTER = SqueezeExcite("after_activation", 4)


@pytest.mark.parametrize(
    ("block", "options", "dialect", "expected"),
    [
        ("RepVGGBlock", {"output_stride": 16, "dilate_first": False}, "timm", (KNOWN, "training")),
        ("RepVGGBlock", {"output_stride": 16}, "official", (KNOWN, "training")),
        ("RepVGGBlock", {"stem_strides": 1}, "official", (KNOWN, "training")),
        ("RepVGGBlock", {"epsilon": 1e-3}, "timm", (KNOWN, "training")),
        ("RepVGGBlock", {"depths": (1, 1, 1, 1)}, "official", (None, "training")),
        ("RepVGGBlock", {"input_shape": (None, None, 1)}, "timm", (KNOWN, "training")),
        ("RepVGGBlock", {"depths": (1, 1, 2, 1), "auxiliary_heads": True}, "plus", (None, "training")),
        ("RepVGGBlock", {"depths": (1, 1, 2, 1), "squeeze_excite": AFTER}, "plus", (None, "training")),
        ("QARepVGGBlock", {}, "timm", (OTHER_BLOCKS, "deploy")),
        ("DiverseBranchBlock", {"depths": (1, 1, 1, 1)}, "official", (None, "deploy")),
    ],
)
def test_every_kind_of_network_comes_back(
    block: str, options: dict[str, Any], dialect: str, expected: tuple[str | None, str], tmp_path: Path
) -> None:
    model = tiny(block, **options)
    weights = choose_weights(find_subject(model))
    assert weights.dialect.name == dialect
    assert (weights.timm_name is not None) == (dialect == "timm")
    write_weights(weights, tmp_path)
    config = HubConfig.read(tmp_path / "config.json")
    assert config == weights.config
    loaded = load_published(tmp_path / "model.safetensors", config, "here")
    metadata = get_metadata(loaded)
    assert (metadata.variant, metadata.form) == expected
    assert (metadata.class_names, metadata.preprocessing) == (CLASSES, get_metadata(model).preprocessing)
    # Expanded branches round once more.
    images = random_images((2, 32, 32, model.input_shape[-1]))
    expected, received = infer(model, images), infer(loaded, images)
    if isinstance(expected, dict):
        expected, received = expected["main"], received["main"]
    assert relative_error(expected, received) < 1e-4
