"""What is asked for is checked before any framework starts, and what is wrong is one sentence."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import run_python
from repvgg.base.errors import InputError, MissingDependencyError
from repvgg.benchmarking import request, runtimes
from repvgg.benchmarking.networks import BASELINES, DEFAULT, Network, NetworkFile, get_network, known_names
from repvgg.benchmarking.request import checked_request
from repvgg.models.variants import VARIANTS


@pytest.mark.parametrize(
    ("networks", "options", "message"),
    [
        (["RepVGG-A9"], {}, "There is no network called 'RepVGG-A9'. Did you mean RepVGG-A"),
        (["ResNet50"], {}, "Did you mean ResNet-50"),
        (["nothing.onnx"], {}, "The network 'nothing.onnx' does not exist"),
        (["RepVGG-A0", "ResNet-50", "RepVGG-A0"], {}, "'RepVGG-A0' is named twice"),
        (["RepVGG-A0"], {"runtimes": ["onxx"]}, "There is no runtime called 'onxx'. Did you mean onnx"),
        (["RepVGG-A0"], {"runtimes": ["onnx", "onnx"]}, "A runtime is named twice"),
        (["RepVGG-A0"], {"batch": 0}, "`batch` must be at least 1. Received: 0"),
        (["RepVGG-A0"], {"rounds": -1}, "`rounds` must be at least 1"),
        (["RepVGG-A0"], {"threads": 4096}, "more than the"),
        (["RepVGG-A0"], {"size": 16}, "is below 32 pixels"),
    ],
)
def test_mistakes(networks: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as raised:
        checked_request(networks, **options)  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_too_little_memory_is_told_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request.psutil, "virtual_memory", lambda: SimpleNamespace(available=2**30))
    with pytest.raises(InputError, match="5 runtimes need about 8 GB of memory at once, and 1 GB are free"):
        checked_request(["RepVGG-B2g4", "ResNet-50", "RepVGG-A2"])


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None)
    with pytest.raises(
        MissingDependencyError, match=r"'LiteRT' needs the package 'ai_edge_litert'.*'repvgg\[litert\]'"
    ):
        checked_request(["RepVGG-A0"], ["litert"])


def test_int8_comes_beside_each_runtime_that_has_it() -> None:
    asked = checked_request(["RepVGG-A0"], ["keras", "onnx"], int8=True)
    assert [runtime.name for runtime in asked.runtimes] == ["Keras", "ONNX Runtime", "ONNX Runtime INT8"]
    assert asked.runs_keras
    assert not checked_request(["RepVGG-A0"], ["onnx"]).runs_keras


def test_files_and_names_may_be_mixed(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"x")
    asked = checked_request([str(tmp_path / "a.onnx"), "VGG-16"])
    assert [type(entry) for entry in asked.entries] == [NetworkFile, Network]
    assert not checked_request([tmp_path / "a.onnx"]).needs_keras


def test_every_name_leads_to_a_network_with_a_family() -> None:
    assert known_names() == [*VARIANTS, *BASELINES]
    families = {name: get_network(name).family for name in known_names()}
    assert families["RepVGG-A0"] == families["RepVGG-B1"] == families["RepVGG-D2se"] == "RepVGG"
    assert families["RepVGG-B1g4"] == families["RepVGG-B3g4"] == "RepVGG g4"
    assert families["QARepVGG-B1g4"] == "QARepVGG g4"
    assert get_network("RepVGG-D2se").image_size == 320
    assert families["ResNet-50"] == families["ResNet-101"] == "ResNet"
    assert all(get_network(name).source for name in DEFAULT)


def test_checking_imports_no_framework() -> None:
    code = """
import sys
from repvgg.benchmarking.request import checked_request
checked_request(["RepVGG-A0", "ResNet-50"])
print([name for name in ("keras", "tensorflow", "jax", "torch", "onnxruntime", "matplotlib") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"
