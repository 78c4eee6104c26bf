"""The search: what is tried in which order, when it ends, and what is left behind if nothing was good enough."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import repvgg
from fitted import calibration, evaluation, fitted
from helpers import infer, relative_error
from repvgg.base.errors import AccuracyError, InputError, OutputExistsError, UnknownNameError
from repvgg.base.processor import SAFE_LEVELS
from repvgg.exporting import export
from repvgg.exporting.int8 import find_int8
from repvgg.quantization import SCHEMES, scale_channels
from repvgg.quantization.schemes import DEFAULT, FALLBACK_STEPS, Scheme
from repvgg.quantization.steps import Steps
from repvgg.runners import load_runner
from repvgg.targets import TARGETS, Settings
from repvgg.targets.int8 import INT8_TARGETS
from repvgg.targets.onnx import quantize as onnx_int8
from sampling import FULL

pytestmark = pytest.mark.processor

for module in ("onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(module)


@cache
def network() -> Any:
    return fitted(num_blocks=[1, 1, 1, 1], width_multiplier=[0.125] * 4)


@cache
def scaled() -> Any:
    return scale_channels(network(), 100.0)


def find(model: Any, target: str = "onnx", **options: Any) -> Any:
    metadata = repvgg.get_metadata(network())
    return find_int8(model, target, calibration(32), metadata, **{"evaluation": evaluation(), **options})


def test_the_default_comes_first_and_is_enough() -> None:
    report = find(network(), max_drop=2.0).report
    assert [attempt.name for attempt in report.attempts] == ["default"]
    assert report.passed
    assert report.scheme == replace(DEFAULT, weight_levels=SAFE_LEVELS)
    assert report.speedup > 0
    assert "accuracy on 300 labelled images may drop by 2 points" in report.summary()


def test_the_fallback_schedule_goes_on_until_it_is_enough() -> None:
    report = find(scaled(), scheme="fallback", max_drop=8.0).report
    names = [attempt.name for attempt in report.attempts]
    assert names[0] == "naive"
    assert names[1:] == list(FALLBACK_STEPS)[: len(names) - 1]
    assert report.attempts[-1].name.startswith(("equalization", "noise-optimal", "GPTQ"))
    assert all(attempt.drop > 8 for attempt in report.attempts[:-1])
    assert report.attempts[-1].drop <= 8
    # Each is on top of what helped before: a gain is measured from the best so far, and what lost is not carried on.
    best = report.attempts[0]
    for attempt in report.attempts[1:]:
        assert attempt.gain == pytest.approx(100 * (attempt.score.agreement - best.score.agreement))
        assert attempt.scheme == FALLBACK_STEPS[attempt.name](best.scheme)
        best = attempt if attempt.is_better_than(best) else best


def sabotage(monkeypatch: pytest.MonkeyPatch) -> list[Scheme]:
    """A quantizer that spoils everything; the schemes that it was given."""
    schemes: list[Scheme] = []
    real = onnx_int8.quantize

    def spoiled(model: Any, images: Any, scheme: Scheme, *rest: Any) -> Any:
        schemes.append(scheme)
        broken = repvgg.quantization.steps.copied(model)
        classifier = broken.get_layer("classifier")
        classifier.kernel.assign(-np.asarray(classifier.kernel))
        return real(broken, images, scheme, *rest)

    monkeypatch.setattr(onnx_int8, "quantize", spoiled)
    return schemes


def test_nothing_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = sabotage(monkeypatch)
    with pytest.raises(AccuracyError) as raised:
        export(
            network(),
            tmp_path / "model.onnx",
            "onnx",
            "int8",
            calibration(32),
            evaluation=evaluation(),
            picture=tmp_path / "layers.png",
        )
    # No artifact, and the picture all the same.
    assert [path.name for path in tmp_path.iterdir()] == ["layers.png"]
    message = str(raised.value)
    assert "No INT8 artifact was written for 'onnx': accuracy on 300 labelled images may drop by 1 point," in message
    assert "--max-drop" in message
    lines = message.splitlines()
    assert len([line for line in lines if " ranges" in line]) == 2 + len(FALLBACK_STEPS)
    for name in ("default", "naive", *FALLBACK_STEPS):
        assert any(line.startswith(name) for line in lines), name
    report = raised.value.report
    assert not report.passed
    # The default, and every step of the schedule; nothing twice.
    assert schemes[:2] == [replace(one, weight_levels=SAFE_LEVELS) for one in (DEFAULT, SCHEMES["naive"])]
    assert len(schemes) == len(set(schemes))
    assert max(scheme.float_layers for scheme in schemes) == 4


def test_a_scheme_by_name_is_tried_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemes = sabotage(monkeypatch)
    with pytest.raises(AccuracyError, match="'naive'"):
        find(network(), scheme="naive")
    assert schemes == [replace(SCHEMES["naive"], weight_levels=SAFE_LEVELS)]


def test_agreement_counts_without_labels() -> None:
    report = find(network(), evaluation=None, max_drop=60.0, scheme="per-channel").report
    assert report.accuracy is report.float_accuracy is None
    assert report.images == 32
    assert "no labelled images were given" in report.criterion()
    assert report.attempts[0].drop == pytest.approx(100 * (1 - report.agreement))
    assert report.to_dict()["criterion"] == "agreement"


@FULL
def test_sensitive_layers_stay_in_float32() -> None:
    found = find(network(), scheme="default-float-2", max_drop=100)
    convolutions = [node for node in found.artifact.graph.node if node.op_type in ("Conv", "Gemm")]
    kernels = {array.name for array in found.artifact.graph.initializer if array.data_type == 1 and len(array.dims) > 1}
    assert sum(node.input[1] in kernels for node in convolutions) == 2
    assert len(convolutions) == 6


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_layers_in_float32_read_nothing_that_is_rounded(target: str, tmp_path: Path) -> None:
    """If all of them stay, nothing is left of the eight bits."""
    pytest.importorskip("nncf")
    model, images = network(), calibration(16)
    names = tuple(step.name for step in Steps(model).weighted)
    quantizer = INT8_TARGETS[target]
    # On a grid that no processor's sums overflow on.
    scheme = replace(SCHEMES["per-channel"], weight_levels=quantizer.levels("portable"))
    artifact = quantizer.quantize(model, images, scheme, names, Settings())
    path = tmp_path / f"model{TARGETS[target].suffix}"
    quantizer.save(artifact, path, repvgg.get_metadata(model))
    assert relative_error(infer(model, images), load_runner(path)(images)) < 1e-5
    # All but one, whose input lies halfway between two points of its grid: as far off as that one alone is.
    artifact = quantizer.quantize(model, images, scheme, names[1:], Settings())
    quantizer.save(artifact, path, repvgg.get_metadata(model))
    assert 1e-4 < relative_error(infer(model, images), load_runner(path)(images)) < 0.05


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("onnx", {"scheme": "nave"}, UnknownNameError, r"no INT8 scheme called 'nave'\. Did you mean naive"),
        ("keras", {}, InputError, r"INT8 is written for onnx, openvino, litert; 'keras' was asked for"),
        ("litert", {"scheme": "percentile"}, InputError, r"cannot be used for 'litert': .* only minmax"),
        ("litert", {"scheme": "default-float-1"}, InputError, "no supported way to leave single layers"),
        ("onnx", {"max_drop": -1.0}, InputError, r"`max_drop` \(=-1.0\)"),
        ("onnx", {"evaluation": (np.zeros((2, 32, 32, 3)), np.zeros(3))}, InputError, r"labels \(N,\)"),
    ],
)
def test_refusals(target: str, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        find(network(), target, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "INT8 needs to see images like those the network will get"),
        (
            {"precision": "int8", "calibration": np.full((1, 32, 32, 3), 0.123), "with_preprocessing": True},
            "These images are not normalized pixels",
        ),
        ({"scheme": "naive"}, "`scheme` is for integer precisions; 'float32' needs none"),
        ({"max_drop": 0.0}, "`max_drop` is for integer precisions"),
        ({"precision": "int8", "calibration": np.zeros((1, 40, 40, 3))}, "the height of these is 40"),
    ],
)
def test_requests_that_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        export(network(), tmp_path / "model.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "layers.png").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="already exists"):
        export(network(), tmp_path / "model.onnx", "onnx", "int8", calibration(8), picture=tmp_path / "layers.png")
    assert (tmp_path / "layers.png").read_bytes() == b"precious"
