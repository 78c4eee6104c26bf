"""Every target and precision of the table: written, loaded by its own runtime, and compared."""

from functools import cache
from typing import Any

import pytest

from exported import NETWORKS, PAIRS, TOLERANCES, deployed
from helpers import Array, Shape, infer, random_images, relative_error
from repvgg.runners import load_runner
from repvgg.targets import TARGETS
from sampling import sampled

pytestmark = pytest.mark.processor

for module in ("onnx", "onnxruntime", "openvino", "ai_edge_litert"):
    pytest.importorskip(module)


@cache
def answers(network: str, shape: Shape) -> tuple[Array, Array]:
    """Images, and what Keras makes of them."""
    images = random_images(shape)
    return images, infer(deployed(network), images)


QUICK = [
    *(("plain", *pair) for pair in PAIRS),
    # Groups and attention are written by each format in its own way, sizes and channels are not.
    *((network, *pair) for network in ("grouped", "plus") for pair in PAIRS if pair[1] == "float32"),
    ("attention before", "savedmodel", "float32"),
    ("attention before", "onnx", "float16"),
    ("one channel", "litert", "float32"),
    ("one channel", "openvino", "float16"),
    ("fixed size", "onnx", "float32"),
    ("fixed size", "litert", "float16"),
]


@pytest.mark.parametrize(
    ("network", "name", "precision"), sampled([(network, *pair) for network in NETWORKS for pair in PAIRS], QUICK)
)
def test_every_network_target_and_precision(network: str, name: str, precision: str, artifact: Any) -> None:
    model = deployed(network)
    result = artifact(network, name, precision)
    assert not result.converted
    assert result.size == sum(file.stat().st_size for file in result.path.parent.rglob("*") if file.is_file())
    runner = load_runner(result.path)
    assert runner.name == result.path.name
    assert runner.input_shape == model.input_shape[1:]
    assert runner.batch_size is None
    height, width, channels = runner.input_shape
    for size in (64, 75) if height is None else (0,):
        images, expected = answers(network, (3, height or size, width or size, channels or 3))
        error = relative_error(expected, runner(images))
        assert error <= TOLERANCES[precision]
        # Weights that were stored in half the bits give other answers; none at all would not be float16.
        assert precision == "float32" or error > 1e-6


@pytest.mark.parametrize("name", [name for name in TARGETS if "float16" in TARGETS[name].precisions])
def test_float16_is_half_the_size(name: str, artifact: Any) -> None:
    weights = 4 * deployed("plain").count_params()
    full, half = (artifact("plain", name, precision).size for precision in ("float32", "float16"))
    # Biases may stay in float32, and casts take some room.
    assert weights < full
    assert full - half == pytest.approx(weights / 2, rel=0.06)
