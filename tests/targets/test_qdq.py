"""What quantization-aware training hands over, as a file in integers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import repvgg
from helpers import (
    Array,
    infer,
    relative_error,
    to_numpy,
)
from prepared import IMAGES, both_grids, calibrated, finished, tiny
from repvgg.base.errors import InputError, OutputExistsError, VerificationError
from repvgg.base.processor import overflows
from repvgg.blocks import BLOCKS
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.quantization.qat import finish_qat
from repvgg.targets.onnx import qdq
from repvgg.targets.onnx.qdq import export_qdq
from sampling import sampled

pytestmark = pytest.mark.processor


@pytest.mark.processor
@both_grids
@pytest.mark.parametrize("kind", sampled(BLOCKS, ["RepVGGBlock", "MobileOneBlock"]))
def test_the_file_in_integers(tmp_path: Path, kind: str, per_channel: bool) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    prepared, deployed, scales = finished(kind, per_channel=per_channel)
    set_metadata(deployed, class_names=tuple("abcde"))
    assert export_qdq(deployed, scales, tmp_path / "int8.onnx").passed
    runner = repvgg.load_runner(tmp_path / "int8.onnx")
    assert runner.metadata.class_names == tuple("abcde")
    assert_same_answers(infer(prepared, IMAGES), runner(IMAGES))

    proto = onnx.load(tmp_path / "int8.onnx")
    kinds = {constant.name: constant.data_type for constant in proto.graph.initializer}
    assert kinds["second/kernel/codes"] == onnx.TensorProto.INT8
    assert kinds["second/bias/codes"] == onnx.TensorProto.INT32
    assert runner.metadata.precision == "int8"
    assert runner.metadata.quantization == {
        "scheme": f"trained in rounded numbers, {'per-channel' if per_channel else 'per-tensor'} weights of 7 bits",
        "processor": "portable",
    }
    largest = max(
        np.abs(onnx.numpy_helper.to_array(one).astype(int)).max()
        for one in proto.graph.initializer
        if one.name.endswith("/kernel/codes")
    )
    assert largest == 63
    # No pair of products can leave 16 bits, whatever the images are.
    assert 2 * 255 * largest < 2**15
    assert not [name for name in kinds if name.endswith(("/kernel", "/bias"))]
    # ONNX Runtime finds the patterns it has integer kernels for, from the first block to the last.
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    runtime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert (operators.count("QLinearConv"), operators.count("QGemm")) == (3, 1)
    assert "Conv" not in operators


def assert_same_answers(expected: Array, found: Array) -> None:
    """Integers are exact: where no sum lies half-way between two points, both agree to 1e-6. One that does is one step
    of 255 in one value of many, and at most some percent of the logits."""
    assert relative_error(expected, found) < 0.03
    largest, second = np.sort(expected, axis=1)[:, -1], np.sort(expected, axis=1)[:, -2]
    clear = largest - second > 0.06 * np.abs(expected).max()
    assert clear.any()
    np.testing.assert_array_equal(expected.argmax(1)[clear], found.argmax(1)[clear])


@pytest.mark.processor
@both_grids
def test_openvino_runs_it(tmp_path: Path, per_channel: bool) -> None:
    openvino = pytest.importorskip("openvino")
    prepared, deployed, scales = finished(per_channel=per_channel)
    qdq.write(deployed, scales, tmp_path / "int8.onnx", get_metadata(deployed))
    compiled = openvino.Core().compile_model(tmp_path / "int8.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert_same_answers(infer(prepared, IMAGES), compiled(np.ascontiguousarray(IMAGES.transpose(0, 3, 1, 2)))[0])
    precisions = {
        str(node.get_rt_info()["runtimePrecision"].astype(str))
        for node in compiled.get_runtime_model().get_ops()
        if node.get_rt_info()["layerType"].astype(str) == "Convolution"
    }
    assert precisions <= {"u8", "i8"}


def test_fewer_bits_are_written_too(tmp_path: Path) -> None:
    """Values beyond the range are cut off in the file as in training."""
    prepared = calibrated(tiny(), weight_bits=7, activation_bits=6)
    deployed, scales = finish_qat(prepared)
    qdq.write(deployed, scales, tmp_path / "int6.onnx", get_metadata(deployed))
    runner = repvgg.load_runner(tmp_path / "int6.onnx")
    # A step of 63 is four of 255.
    for images in (IMAGES, 3 * IMAGES):
        assert relative_error(infer(prepared, images), runner(images)) < 0.1
    assert relative_error(infer(tiny(), 3 * IMAGES), runner(3 * IMAGES)) > 0.3


def test_a_bias_that_would_not_fit_gets_a_coarser_grid(tmp_path: Path) -> None:
    model = repvgg.reparameterize(tiny())
    kernel = model.get_layer("second").kernel
    kernel.assign(to_numpy(kernel) * np.array([1, 1, 1, 1e-12, 1, 1, 1, 1]))
    prepared = calibrated(model, per_channel=True, weight_bits=7)
    deployed, scales = finish_qat(prepared)
    qdq.write(deployed, scales, tmp_path / "int8.onnx", get_metadata(deployed))
    assert_same_answers(infer(prepared, IMAGES), repvgg.load_runner(tmp_path / "int8.onnx")(IMAGES))


@pytest.mark.skipif(overflows(), reason="products of 8 bits may overflow on this processor")
def test_kernels_of_8_bits_are_for_some_processors(tmp_path: Path) -> None:
    prepared, deployed, scales = finished(weight_bits=8)
    assert export_qdq(deployed, scales, tmp_path / "int8.onnx").passed
    runner = repvgg.load_runner(tmp_path / "int8.onnx")
    assert_same_answers(infer(prepared, IMAGES), runner(IMAGES))
    assert runner.metadata.quantization is not None
    assert runner.metadata.quantization["processor"] == "vnni"


def test_kernels_of_8_bits_cannot_be_proved_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPVGG_PROCESSOR", "avx2")
    _, deployed, scales = finished(weight_bits=8)
    with pytest.raises(InputError, match=r"cannot be proved here.*weight_bits=7"):
        export_qdq(deployed, scales, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_scales_and_models_that_do_not_belong_together(tmp_path: Path) -> None:
    _, deployed, scales = finished()
    fewer = replace(scales, layers={name: grid for name, grid in scales.layers.items() if name != "pool"})
    with pytest.raises(InputError, match=r"Only one of them has: pool\."):
        export_qdq(deployed, fewer, tmp_path / "int8.onnx")
    wrong = replace(scales.layers["second"], weight=(0.5,))
    with pytest.raises(InputError, match="the kernel of 'second' has others"):
        export_qdq(deployed, replace(scales, layers={**scales.layers, "second": wrong}), tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, deployed, scales = finished()
    with pytest.raises(InputError, match=r"ends in '\.onnx'"):
        export_qdq(deployed, scales, tmp_path / "int8.tflite")
    (tmp_path / "int8.onnx").write_text("mine")
    with pytest.raises(OutputExistsError):
        export_qdq(deployed, scales, tmp_path / "int8.onnx")
    with pytest.raises(InputError, match="9 bits for weights and 8 for activations"):
        qdq.write(deployed, replace(scales, weight_bits=9), tmp_path / "wide.onnx", get_metadata(deployed))
    foreign = replace(scales, layers={**scales.layers, "tenth": scales.layers["pool"]})
    with pytest.raises(InputError, match="no layer for these scales: tenth"):
        qdq.write(deployed, foreign, tmp_path / "foreign.onnx", get_metadata(deployed))
    monkeypatch.setattr(qdq, "simulate", lambda model, scales: tiny("QARepVGGBlock"))
    with pytest.raises(VerificationError, match=r"'int8\.onnx' was not kept"):
        export_qdq(deployed, scales, tmp_path / "int8.onnx", force=True)
    assert (tmp_path / "int8.onnx").read_text() == "mine"
