"""What the report says about layers, and its picture."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image, ImageColor

import repvgg
from helpers import infer, random_images, small_network, trained_like
from repvgg.base.drawing import PALE, STRONG
from repvgg.base.errors import OutputExistsError
from repvgg.exporting.int8.picture import draw_layers
from repvgg.quantization import LayerRow, layer_rows, scale_channels
from repvgg.quantization.equalization_groups import Weights, find_equalization_groups
from repvgg.quantization.sensitivity import most_sensitive
from repvgg.quantization.steps import Steps

IMAGES = random_images((16, 32, 32, 3))


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(0)
    return repvgg.reparameterize(trained_like(small_network()))


@pytest.fixture(scope="module")
def rows(model: Any) -> tuple[LayerRow, ...]:
    return layer_rows(model, IMAGES)


def test_a_row_for_each_layer(model: Any, rows: tuple[LayerRow, ...]) -> None:
    assert [row.name for row in rows] == [step.name for step in Steps(model).weighted]
    assert [row.name for row in rows][-1] == "classifier"
    kernel = np.asarray(model.get_layer("stage0").kernel)
    ranges = np.abs(kernel).max(axis=(0, 1, 2))
    assert rows[0].smallest == pytest.approx(ranges.min())
    assert rows[0].largest == pytest.approx(ranges.max())
    assert rows[0].outliers == pytest.approx(ranges.max() / np.median(ranges))
    for row in rows:
        # Eight bits: 6 dB each, less what the distribution leaves unused.
        assert 25 < row.weight_sqnr < 50
        assert 15 < row.output_sqnr < 60
        assert 15 < row.network_sqnr < 70
        assert row.agreement is not None
        assert 0.5 <= row.agreement <= 1


def test_the_network_is_left_alone(model: Any, rows: tuple[LayerRow, ...]) -> None:
    before, outputs = model.get_weights(), infer(model, IMAGES)
    again = layer_rows(model, IMAGES)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    np.testing.assert_array_equal(outputs, infer(model, IMAGES))
    assert again == rows


def test_scaled_channels_show(model: Any, rows: tuple[LayerRow, ...]) -> None:
    spread_out = scale_channels(model)
    fine, coarse = (layer_rows(spread_out, IMAGES, per_channel=per_channel)[1:-1] for per_channel in (True, False))
    before = rows[1:-1]
    assert np.median([row.spread for row in fine]) > 5 * np.median([row.spread for row in before])
    # A bit or more is lost by the input alone, and as much again by weights with one grid for all channels.
    assert all(one.output_sqnr > other.output_sqnr + 3 for one, other in zip(before, fine, strict=True))
    assert all(one.weight_sqnr > other.weight_sqnr for one, other in zip(fine, coarse, strict=True))
    assert np.median([one.network_sqnr - other.network_sqnr for one, other in zip(fine, coarse, strict=True)]) > 3


def test_the_most_sensitive_layers_are_found(model: Any) -> None:
    """One channel 200 times larger: the layer that makes it, with one grid for all, and the one that reads it."""
    spoiled = repvgg.quantization.steps.copied(model)
    steps = Steps(spoiled)
    weights = Weights(steps)
    (group,) = [group for group in find_equalization_groups(steps) if group.producer.name == "stage2_block1"]
    scales = np.ones(group.producer.layer.filters)
    scales[0] = 1 / 200
    weights.rescale(group, scales)
    weights.store()
    found = layer_rows(spoiled, IMAGES, per_channel=False)
    assert set(most_sensitive(found, 2)) == {"stage2_block1", "stage3_block0"}
    assert len(set(most_sensitive(found, 4))) == 4


def test_nested_networks_are_opened() -> None:
    inputs = keras.Input((32, 32, 3))
    nested = keras.Model(inputs, keras.layers.Dense(3, name="last")(small_network()(inputs)))
    names = [row.name for row in layer_rows(repvgg.reparameterize(trained_like(nested)), IMAGES)]
    assert len(names) == 9
    assert names[-1] == "last"
    assert all("/" in name for name in names[:-1])


def test_picture(rows: tuple[LayerRow, ...], tmp_path: Path) -> None:
    draw_layers(rows, rows, tmp_path / "layers.png", title="a title")
    with Image.open(tmp_path / "layers.png") as picture:
        assert picture.width > picture.height / 2
        # Both series are there.
        colors = {color for _, color in picture.convert("RGB").getcolors(picture.width * picture.height)}
        assert {ImageColor.getrgb(color) for color in (STRONG, PALE)} <= colors
    with pytest.raises(OutputExistsError):
        draw_layers(rows, None, tmp_path / "layers.png", title="a title")
    draw_layers(rows, None, tmp_path / "layers.png", title="a title", force=True)
