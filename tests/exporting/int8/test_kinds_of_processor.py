"""INT8 files for a kind of processor: what they hold, what they say, and what is refused and warned of."""

import json
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from fitted import calibration, evaluation, fitted
from helpers import random_images, trained_like
from repvgg.base import processor
from repvgg.base.errors import AccuracyError, InputError, ProcessorWarning, UnknownNameError
from repvgg.base.metadata import Metadata
from repvgg.base.processor import PROCESSORS
from repvgg.cli import main
from repvgg.exporting.int8 import find_int8
from repvgg.quantization.prepare import prepare
from repvgg.quantization.schemes import FALLBACK_STEPS, SCHEMES, Scheme
from repvgg.quantization.steps import Steps, kernel_of
from repvgg.runners import load_runner
from repvgg.targets import TARGETS, Settings
from repvgg.targets.int8 import INT8_TARGETS
from sampling import sampled

for module in ("onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "sklearn"):
    pytest.importorskip(module)

LARGEST_SUM = 2**15 - 1
LARGEST_INPUT = 255


@pytest.fixture
def avx2(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor on which products of 8 bits overflow."""
    monkeypatch.setenv("REPVGG_PROCESSOR", "avx2")


@pytest.fixture
def vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    """One on which they do not."""
    monkeypatch.delenv("REPVGG_PROCESSOR", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")


@pytest.fixture(autouse=True)
def not_warned() -> Iterator[None]:
    processor._warned.clear()
    yield
    processor._warned.clear()


# What files hold


@cache
def network() -> Any:
    """With a stride, groups, and a classifier, whose kernels formats lay out in their own ways."""
    keras.utils.set_random_seed(0)
    images = keras.Input((25, 25, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="first")(images)
    x = keras.layers.Conv2D(12, 3, groups=2, activation="relu", name="second")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return trained_like(keras.Model(images, keras.layers.Dense(5, name="classifier")(x)))


IMAGES = random_images((16, 25, 25, 3), seed=3)


def stored_kernels(target: str, path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Integers and steps, which multiply to the kernel, of every convolution and dense layer, by its name."""
    return {"onnx": _of_onnx, "openvino": _of_openvino, "litert": _of_litert}[target](path)


def _of_onnx(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import onnx

    graph = onnx.load(path).graph
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    found = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            codes, steps, zero = (constants[name] for name in producers[node.input[1]].input)
            assert codes.dtype == np.int8
            assert not zero.any()
            if node.op_type == "Gemm" and not next((one.i for one in node.attribute if one.name == "transB"), 0):
                codes = codes.T
            found[node.name.partition("/")[0]] = codes, steps.reshape(-1, *[1] * (codes.ndim - 1))
    return found


def _of_openvino(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    import openvino

    found = {}
    for node in openvino.Core().read_model(path).get_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution", "MatMul"):
            source = node.input_value(1).get_node()
            factors, shifts = [], []
            while source.get_type_name() != "Constant":
                kind = source.get_type_name()
                if kind == "Multiply":
                    factors.append(source.input_value(1).get_node().data)
                elif kind == "Subtract":
                    shifts.append(source.input_value(1).get_node())
                source = source.input_value(0).get_node()
            assert not shifts, "a zero point of weights would not be what integers are multiplied by"
            codes = source.data
            assert codes.dtype == np.int8
            found[node.get_friendly_name().partition("/")[0]] = codes, np.prod(factors, axis=0)
    return found


def _of_litert(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    details = {one["index"]: one for one in interpreter.get_tensor_details()}
    found = {}
    for operation in interpreter._get_ops_details():
        if operation["op_name"] in ("CONV_2D", "FULLY_CONNECTED"):
            kernel = details[operation["inputs"][1]]
            codes = interpreter.get_tensor(kernel["index"])
            assert codes.dtype == np.int8
            scales = kernel["quantization_parameters"]["scales"]
            found[f"{len(found)}"] = codes, scales.reshape(-1, *[1] * (codes.ndim - 1))
    return found


@pytest.mark.processor
@pytest.mark.parametrize("kind", ["portable", "vnni"])
@pytest.mark.parametrize("target", list(INT8_TARGETS))
@pytest.mark.parametrize("per_channel", sampled([True, False], [True]), ids=lambda value: f"per_channel={value}")
def test_nothing_is_lost_on_the_way(target: str, kind: str, per_channel: bool, tmp_path: Path) -> None:
    """The quantizer finds the grid that weights were fitted and rounded on, and portable products cannot overflow."""
    quantizer = INT8_TARGETS[target]
    scheme = Scheme(per_channel=per_channel, rounding="gptq", weight_levels=quantizer.levels(kind))
    prepared = prepare(network(), IMAGES, scheme)
    artifact = quantizer.quantize(prepared, IMAGES, scheme, (), Settings())
    path = tmp_path / f"model{TARGETS[target].suffix}"
    quantizer.save(artifact, path, Metadata())

    kernels = stored_kernels(target, path)
    wanted = {step.name: kernel_of(step.layer) for step in Steps(prepared).weighted}
    if target == "litert":  # which names no layers, and keeps their order
        kernels = dict(zip(wanted, kernels.values(), strict=True))
    assert set(kernels) == set(wanted)
    for name, kernel in wanted.items():
        codes, steps = kernels[name]
        largest = int(np.abs(codes.astype(int)).max())
        assert largest == quantizer.levels(kind)
        if quantizer.overflows and kind == "portable":
            assert 2 * LARGEST_INPUT * largest <= LARGEST_SUM
        elif quantizer.overflows:
            assert 2 * LARGEST_INPUT * largest > LARGEST_SUM
        values = np.sort((codes * steps).ravel())
        # The same numbers, whatever order a format keeps them in; both were stored in float32.
        np.testing.assert_allclose(values, np.sort(kernel.ravel()), rtol=0, atol=1e-5 * np.abs(kernel).max())


def test_what_each_target_needs() -> None:
    assert {name: one.levels("portable") for name, one in INT8_TARGETS.items()} == {
        "onnx": 64,
        "openvino": 64,
        "litert": 127,
    }
    assert {one.levels("vnni") for one in INT8_TARGETS.values()} == {127}
    # A file that is right everywhere says so, whatever was asked for.
    assert INT8_TARGETS["litert"].made_for("vnni") == "portable"
    assert INT8_TARGETS["onnx"].made_for("vnni") == "vnni"


@cache
def tiny() -> Any:
    return fitted(num_blocks=[1, 1, 1, 1], width_multiplier=[0.125] * 4)


def find(target: str = "onnx", **options: Any) -> Any:
    metadata = repvgg.get_metadata(tiny())
    return find_int8(tiny(), target, calibration(16), metadata, **{"max_drop": 100.0, **options})


@pytest.mark.parametrize(("target", "levels"), [("onnx", 64), ("litert", 127)])
def test_every_rung_is_on_the_grid_of_its_target(target: str, levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes: list[Scheme] = []

    def made(_: Any, scheme: Scheme) -> repvgg.Runner:
        schemes.append(scheme)
        return Broken()

    monkeypatch.setattr("repvgg.exporting.int8.search._Trial._made", made)
    with pytest.raises(AccuracyError, match="noise-optimal equalization alone"):
        find(target, scheme="ladder", max_drop=0.0, evaluation=evaluation())  # the schedule's former name
    assert {scheme.weight_levels for scheme in schemes} == {levels}
    assert schemes[0] == replace(SCHEMES["naive"], weight_levels=levels)
    assert replace(SCHEMES["noise-optimal"], weight_levels=levels) in schemes
    alone = FALLBACK_STEPS["noise-optimal equalization alone"](
        Scheme(rounding="gptq", calibrator="entropy", weight_levels=levels)
    )
    assert alone == replace(SCHEMES["noise-optimal"], weight_levels=levels)


class Broken(repvgg.Runner):
    """Always the first class."""

    name = "broken"
    input_shape = (32, 32, 3)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return np.eye(10)[np.zeros(len(images), int)]


# What files say, and what is said about them


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, and a file of it for each kind of processor, made where both can be."""
    folder = tmp_path_factory.mktemp("processor")
    repvgg.save_model(tiny(), folder / "model.keras")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("REPVGG_PROCESSOR", "avx2")
        warnings.simplefilter("ignore", ProcessorWarning)
        for kind in ("portable", "vnni"):
            options = {"scheme": "per-channel", "max_drop": 100.0, "processor": kind}
            result = repvgg.export(tiny(), folder / f"{kind}.onnx", "onnx", "int8", calibration(16), **options)
            assert result.int8 is not None
            assert result.int8.report.processor == kind
            bits = "" if kind == "vnni" else " of 7 bits"
            assert result.int8.report.scheme.describe().startswith(f"per-channel weights{bits}, ")
    return folder


@pytest.mark.usefixtures("avx2")
def test_a_file_for_other_processors_is_warned_of_once(place: Path) -> None:
    with pytest.warns(ProcessorWarning, match=r"'vnni\.onnx' was made for processors with VNNI.*--processor portable"):
        load_runner(place / "vnni.onnx")
    # Warnings are errors here, so what follows gives none.
    load_runner(place / "vnni.onnx")
    load_runner(place / "portable.onnx")


@pytest.mark.usefixtures("vnni")
def test_no_warning_where_it_is_right(place: Path) -> None:
    for kind in ("vnni", "portable"):
        metadata = load_runner(place / f"{kind}.onnx").metadata
        assert metadata.quantization is not None
        assert metadata.quantization["processor"] == kind


@pytest.mark.usefixtures("avx2")
def test_what_cannot_be_measured_here_is_refused() -> None:
    for target in ("onnx", "openvino"):
        with pytest.raises(InputError, match="cannot be evaluated here, where products of 8 bits may overflow"):
            find(target, processor="vnni", evaluation=evaluation())
    found = find("litert", processor="vnni", evaluation=evaluation(), scheme="per-channel")
    assert found.report.processor == "portable"
    # `this` is what can be measured here.
    assert find(processor="this", scheme="naive").report.processor == "portable"


def test_no_such_processor() -> None:
    with pytest.raises(UnknownNameError, match=r"no kind of processor called 'vnii'\. Did you mean vnni"):
        find(processor="vnii")
    assert list(PROCESSORS) == ["portable", "vnni", "this"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["repvgg", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.usefixtures("avx2")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--processor", "pentium"), "no kind of processor called 'pentium'. Known: portable, vnni, this."),
        (("--processor", "vnni", "--evaluate", "."), "cannot be evaluated here"),
    ],
)
def test_refusals_on_the_command_line(
    options: tuple[str, ...],
    message: str,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments = ("--precision", "int8", "--calibration", ".", *options)
    assert run(monkeypatch, "export", place / "model.keras", place / "no.onnx", *arguments) == 2
    shown = capfd.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert not (place / "no.onnx").exists()


def test_a_float_file_is_for_every_processor(place: Path) -> None:
    with pytest.raises(InputError, match="`processor` is for integer precisions; 'float32' needs none"):
        repvgg.export(tiny(), place / "no.onnx", processor="vnni")


@pytest.mark.filterwarnings("default")
@pytest.mark.usefixtures("avx2")
def test_the_command_line_warns_in_one_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "inspect", place / "vnni.onnx") == 0
    shown = capfd.readouterr()
    assert shown.err.startswith("Warning: 'vnni.onnx' was made for processors with VNNI")
    assert shown.err.count("\n") == 1
    assert f"made for: vnni: {PROCESSORS['vnni']}" in shown.out


def test_inspect_shows_what_it_was_made_for(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "inspect", place / "portable.onnx") == 0
    shown = capfd.readouterr().out
    for part in (
        f"made for: portable: {PROCESSORS['portable']}",
        "scheme: per-channel weights of 7 bits, minmax ranges",
        "top-1 agreement with float32: ",
        "of 16 images",
        "input: normalized images (any, 32, 32, 3)",
    ):
        assert part in shown, part
    assert run(monkeypatch, "inspect", place / "portable.onnx", "--json") == 0
    assert json.loads(capfd.readouterr().out)["made for"].startswith("portable")
    assert run(monkeypatch, "inspect", place / "portable.onnx", "--size", "64") == 2
    assert "--size is not for exported files" in capfd.readouterr().err
