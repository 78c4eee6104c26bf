"""A network whose channels differ by up to 100 times in range, and is the same function: naive INT8 leaves nothing."""

from functools import cache
from typing import Any

import pytest

import repvgg
from fitted import calibration, evaluation, fitted
from repvgg.exporting.int8 import find_int8
from repvgg.quantization import scale_channels
from repvgg.targets.int8 import INT8_TARGETS
from sampling import sampled

pytestmark = pytest.mark.processor

for module in ("onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "sklearn"):
    pytest.importorskip(module)


@cache
def network() -> Any:
    return fitted()


@cache
def scaled() -> Any:
    return scale_channels(network(), 100.0)


def accuracy(model: Any, target: str, scheme: str) -> float:
    metadata = repvgg.get_metadata(network())
    found = find_int8(model, target, calibration(), metadata, evaluation=evaluation(), max_drop=100, scheme=scheme)
    assert found.report.accuracy is not None
    return found.report.accuracy


@pytest.mark.parametrize("target", sampled(INT8_TARGETS, []))
def test_a_network_that_collapses_is_rescued(target: str) -> None:
    assert accuracy(scaled(), target, "naive") < 0.5
    assert accuracy(scaled(), target, "per-channel") < 0.5
    assert accuracy(scaled(), target, "default") >= accuracy(network(), target, "default") - 0.01


@pytest.mark.full
def test_equalization_of_weights_alone_rescues_it() -> None:
    """Both become the same network up to 2e-3, and round differently then: a few of 300 images change sides."""
    assert accuracy(scaled(), "onnx", "equalized") >= accuracy(network(), "onnx", "equalized") - 0.04
