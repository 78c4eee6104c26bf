"""Every target in INT8: written, loaded by its own runtime, about as good as in float32."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repvgg
from fitted import IMAGES, calibration, digits, evaluation, fitted
from helpers import infer
from repvgg.demo.digits import CLASS_NAMES, PREPROCESSING
from repvgg.exporting import Export, export
from repvgg.quantization import SCHEMES
from repvgg.runners import load_runner
from repvgg.targets.int8 import INT8_TARGETS
from repvgg.targets.network import scale_and_shift
from sampling import sampled

pytestmark = pytest.mark.processor

for module in ("onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "sklearn"):
    pytest.importorskip(module)

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "litert": ".tflite"}

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"override_groups_map": {2: 2, 3: 4}},
    "attention": {"squeeze_excite": repvgg.SqueezeExcite("before_activation", 4)},
}

AGREEMENT = {"plain": 0.96, "grouped": 0.96, "attention": 0.9}
"""Share of 300 digits that keep their class.

Random features tell the digits apart by little, so this is harder than trained networks are: with per-channel weights
alone the one with attention keeps 64 %.
"""


@cache
def network(name: str) -> Any:
    return fitted(**NETWORKS[name])


def exported(model: Any, path: Path, target: str, **options: Any) -> Export:
    settings = {"calibration": calibration(), "evaluation": evaluation(), "scheme": "default", "max_drop": 5.0}
    return export(model, path, target, "int8", **{**settings, **options})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Export]:
    """Each network for each target, once."""
    folder = tmp_path_factory.mktemp("int8")

    @cache
    def write(name: str, target: str) -> Export:
        return exported(network(name), folder / f"{name}{SUFFIXES[target]}", target)

    return write


@pytest.mark.parametrize(
    ("name", "target"),
    sampled(
        [(name, target) for name in NETWORKS for target in INT8_TARGETS],
        [("plain", "litert"), ("grouped", "onnx")],
    ),
)
def test_every_network_and_target(name: str, target: str, written: Callable[[str, str], Export]) -> None:
    result = written(name, target)

    assert result.int8 is not None
    report = result.int8.report
    assert report.passed
    assert report.labelled
    runner = load_runner(result.path)
    images, labels = evaluation()
    answers = runner(images)
    # What the report says is what the file does.
    assert report.accuracy == np.mean(answers.argmax(axis=1) == labels)
    agreement = np.mean(answers.argmax(axis=1) == infer(network(name), images).argmax(axis=1))
    assert report.agreement == pytest.approx(agreement, abs=0.01)
    assert agreement >= AGREEMENT[name]
    assert report.float_accuracy is not None
    assert report.float_accuracy > 0.8

    assert runner.metadata.precision == "int8"
    assert runner.metadata.class_names == CLASS_NAMES
    assert runner.metadata.quantization is not None
    assert runner.metadata.quantization["agreement"] == report.agreement
    scheme = replace(SCHEMES["default"], weight_levels=INT8_TARGETS[target].levels("portable"))
    assert runner.metadata.quantization["scheme"] == scheme.describe()
    assert runner.metadata.quantization["processor"] == "portable"
    # The scores come into the file after it was measured.
    assert 0 <= result.size - report.size < 5000
    assert report.size < 0.5 * report.float_size
    assert 0 < report.relative_error < 0.5
    assert result.report.max_relative_error > 0


def test_onnx_is_quantized_throughout(written: Callable[[str, str], Export]) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(written("grouped", "onnx").path).graph
    kernels = [array for array in graph.initializer if len(array.dims) == 4]
    assert len(kernels) == 7
    assert {array.data_type for array in kernels} == {onnx.TensorProto.INT8}
    producers = {output: node.op_type for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 7
    for node in convolutions:
        assert [producers[name] for name in node.input] == ["DequantizeLinear"] * 3
    # A scale for each output channel.
    scales = {array.name: tuple(array.dims) for array in graph.initializer if array.name.endswith("kernel_scale")}
    assert (32,) in scales.values()
    # Logits keep their precision.
    assert producers[graph.output[0].name] == "Gemm"


def test_openvino_is_quantized_throughout(written: Callable[[str, str], Export]) -> None:
    openvino = pytest.importorskip("openvino")
    operations = openvino.Core().read_model(written("plain", "openvino").path).get_ops()
    kernels = [one for one in operations if one.get_type_name() == "Constant" and len(one.get_output_shape(0)) == 4]
    weights = [one for one in kernels if np.prod(one.get_output_shape(0)[2:]) == 9]
    assert len(weights) == 7
    assert {one.get_element_type().get_type_name() for one in weights} == {"i8"}


def test_litert_is_quantized_throughout(written: Callable[[str, str], Export]) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    details = litert.Interpreter(model_path=str(written("plain", "litert").path)).get_tensor_details()
    floats = [one["name"] for one in details if one["dtype"] is np.float32]
    # The images, and the logits.
    assert len(floats) == 2
    kernels = [one for one in details if len(one["shape"]) == 4 and tuple(one["shape"][1:3]) == (3, 3)]
    assert len(kernels) == 7
    # A scale for each output channel.
    assert all(len(one["quantization_parameters"]["scales"]) == one["shape"][0] for one in kernels)


@pytest.mark.parametrize("target", list(INT8_TARGETS))
def test_fixed_batches(target: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{SUFFIXES[target]}"
    result = exported(network("plain"), path, target, scheme="per-channel", max_drop=100, batch=7, image_size=32)
    assert load_runner(path).batch_size == 7
    assert result.int8 is not None
    # 300 images are not a multiple of 7.
    assert result.int8.report.images == IMAGES
    # Nearest rounding to 7 bits costs these random features a third of their classes; a batch filled up wrongly, all.
    assert result.int8.report.agreement > 0.5


@pytest.mark.parametrize("target", list(INT8_TARGETS))
def test_pixels_in_and_probabilities_out(target: str, written: Callable[[str, str], Export], tmp_path: Path) -> None:
    """The same network in eight bits as without; what is around it is not quantized."""
    path = tmp_path / f"model{SUFFIXES[target]}"
    result = exported(network("plain"), path, target, softmax=True, with_preprocessing=True)
    runner, plain = load_runner(path), load_runner(written("plain", target).path)
    assert runner.takes_uint8
    assert runner.gives_probabilities
    images, labels = evaluation()
    pixels = PREPROCESSING.restore(images)
    answers = runner(pixels)
    # Normalized as the artifact does it: these grey levels lie halfway between two points of the grid, and the last bit
    # of a float decides.
    scale, shift = scale_and_shift(PREPROCESSING, "float32")
    logits = plain(pixels.astype(np.float32) * scale + shift).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.mean(answers.argmax(axis=1) == expected.argmax(axis=1)) >= 0.99
    # Ranges were measured on values that may differ in that bit, so single activations are one point off.
    assert np.abs(answers - expected).mean() < 2e-4
    np.testing.assert_allclose(answers, expected, atol=0.02)
    np.testing.assert_allclose(answers.sum(axis=1), 1, rtol=1e-5)
    assert result.int8 is not None
    assert result.int8.report.accuracy == np.mean(answers.argmax(axis=1) == labels)


def test_training_form_and_folders(tmp_path: Path) -> None:
    """What the command line does: a training form, images in class folders."""
    keep = digits()
    for index in range(60):
        folder = tmp_path / "images" / str(keep.test_labels[index])
        folder.mkdir(parents=True, exist_ok=True)
        keep.test_pictures[index].save(folder / f"{index}.png")
    model = repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=10, input_shape=(32, 32, 3))
    deployed = network("plain")
    repvgg.set_metadata(model, repvgg.get_metadata(deployed), form="training")
    folder = tmp_path / "images"
    options = {"calibration": folder, "evaluation": folder, "max_drop": 100, "scheme": "per-channel"}
    result = export(model, tmp_path / "model.onnx", "onnx", "int8", calibration_count=20, **options)
    assert result.converted
    assert result.int8 is not None
    assert result.int8.report.images == 60
    # As the metadata are JSON in the file, so they can be read by anything.
    assert json.loads(load_runner(tmp_path / "model.onnx").metadata.to_json())["quantization"]["images"] == 60
