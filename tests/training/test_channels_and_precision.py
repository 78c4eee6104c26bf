"""Runs of networks of one's own: grey images and ones with a fourth channel, in mixed precision and in float32."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from small_run import small_settings

import repvgg
from repvgg.base.errors import InputError
from repvgg.base.metadata import Preprocessing
from repvgg.data.images import load_image, prepare_image
from repvgg.models.layers import all_layers
from repvgg.models.saving import load_model
from sampling import sampled


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noise whose classes differ in grey and, more, in the fourth channel."""
    root = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 4)):
        for label, name in enumerate(("dark", "light")):
            (root / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 120, (40, 44, 4))
                pixels[..., :3] += 60 * label
                pixels[..., 3] += 130 * label
                Image.fromarray(pixels.astype(np.uint8), "RGBA").save(root / part / name / f"{index}.png")
    return root


def network(channels: int, **options: Any) -> Any:
    keras.utils.set_random_seed(3)
    shape = (32, 32, channels)
    return repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=2, input_shape=shape, name="mine", **options)


@pytest.mark.parametrize(
    ("channels", "policy"), sampled([(1, "mixed_bfloat16"), (4, "float32")], [(1, "mixed_bfloat16")])
)
def test_a_run_ends_with_both_forms(channels: int, policy: str, data: Path, tmp_path: Path) -> None:
    settings = small_settings()
    settings["recipe"] = settings["recipe"].changed(epochs=1)
    result = repvgg.train(data, network(channels, dtype=policy), output=tmp_path / "run", **settings)
    assert result.outcome is not None
    assert result.outcome.relative_difference < 1e-5
    best, deployed = (load_model(tmp_path / "run" / name) for name in ("best.keras", "deploy.keras"))
    assert best.get_layer("stage0").dtype_policy.name == policy
    assert {layer.compute_dtype for layer in all_layers(deployed)} == {"float32"}
    preprocessing = repvgg.get_metadata(deployed).preprocessing
    assert preprocessing == Preprocessing.for_channels(channels, 32, round(32 * 256 / 224))

    # Evaluated, predicted from files and exported as what it is.
    assert repvgg.evaluate(tmp_path / "run" / "deploy.keras", data / "val").top1 == result.outcome.deployed_top1
    repvgg.export(deployed, tmp_path / "pixels.onnx", with_preprocessing=True)
    image = load_image(data / "val" / "dark" / "0.png", channels)
    prepared = prepare_image(image, preprocessing)[None]
    expected = repvgg.load_runner(tmp_path / "run" / "deploy.keras")(prepared)
    pixels = repvgg.load_runner(tmp_path / "pixels.onnx")(preprocessing.restore(prepared))
    assert np.abs(expected - pixels).max() < 1e-4 * np.abs(expected).max()


def test_other_channels_end_before_anything_starts(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"4 .*, and 2 are needed"):
        repvgg.train(data, network(2), output=tmp_path / "run", **small_settings())
    model = network(1)
    repvgg.set_metadata(model, preprocessing=Preprocessing(32, 36))
    with pytest.raises(InputError, match="'mine' takes images of 1 channels, and carries preprocessing for 3"):
        repvgg.train(data, model, output=tmp_path / "run", **small_settings())
    assert not (tmp_path / "run").exists()
