"""Every target of the table: written, loaded by its own runtime, compared, and minimal."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from helpers import infer, random_images, relative_error, trained_like
from repvgg.errors import FileError, InputError, OutputExistsError, UnknownNameError, VerificationError
from repvgg.exporters import TARGETS
from repvgg.exporters import onnx as target
from repvgg.exporting import export
from repvgg.runners import load_runner

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

TOLERANCE = 1e-5
"""Another runtime adds up in another order; some 80 roundings of float32."""

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"override_groups_map": {2: 2, 3: 4}},
    "attention before": {"squeeze_excite": repvgg.SqueezeExcite("before_activation", 4)},
    "plus": {"squeeze_excite": repvgg.SqueezeExcite("after_activation", 4), "auxiliary_heads": True},
    "one channel": {"input_shape": (None, None, 1)},
    "fixed size": {"input_shape": (40, 50, 3)},
}


def small(**settings: Any) -> Any:
    return trained_like(repvgg.RepVGG([1, 1, 2, 1], [0.25] * 4, **{"num_classes": 3, **settings}))


@pytest.mark.parametrize("name", list(TARGETS))
@pytest.mark.parametrize("network", list(NETWORKS))
def test_every_network_and_target(name: str, network: str, tmp_path: Path) -> None:
    model = small(**NETWORKS[network])
    repvgg.set_metadata(model, class_names=("a", "b", "c"))
    path = tmp_path / f"model{TARGETS[name].suffix}"

    result = export(model, path, name)

    assert result.converted
    assert result.size >= path.stat().st_size or path.is_dir()
    runner = load_runner(path)
    assert runner.metadata.class_names == ("a", "b", "c")
    assert runner.metadata.form == "deploy"
    height, width, channels = runner.input_shape
    for size in (64, 75) if height is None else (0,):
        images = random_images((3, height or size, width or size, channels or 3))
        expected = infer(model, images)
        expected = expected["main"] if isinstance(expected, dict) else expected
        assert relative_error(expected, runner(images)) <= TOLERANCE


@pytest.mark.parametrize(
    ("network", "operators"),
    [
        ("plain", {"Conv": 6, "Relu": 6, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}),
        ("grouped", {"Conv": 6, "Relu": 6, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}),
    ],
)
def test_onnx_graph_holds_what_the_network_is(network: str, operators: dict[str, int], tmp_path: Path) -> None:
    export(small(**NETWORKS[network]), tmp_path / "model.onnx")
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert Counter(node.op_type for node in graph.node) == operators
    assert [value.name for value in graph.input] == ["images"]
    assert [value.name for value in graph.output] == ["logits"]


def test_feature_extractor(tmp_path: Path) -> None:
    model = small(num_classes=None)
    export(model, tmp_path / "features.onnx")
    images = random_images((2, 64, 64, 3))
    expected, received = infer(model, images), load_runner(tmp_path / "features.onnx").outputs(images)
    assert list(received) == ["stage0", "stage1", "stage2", "stage3", "stage4"]
    for name, values in received.items():
        assert relative_error(expected[name], values) <= TOLERANCE


def test_larger_model_with_shared_and_nested_layers(tmp_path: Path) -> None:
    """Foreign layers, a nested model, and one head on two inputs."""
    backbone = repvgg.RepVGGBackbone([1, 1, 1, 1], [0.25] * 4, image_shape=(None, None, 3))
    inputs = keras.Input((64, 64, 3))
    features = backbone(inputs)
    head = keras.Sequential([keras.Input((None, None, 128)), repvgg.RepVGGBlock(16), keras.layers.Dropout(0.5)])
    mixed = keras.layers.Concatenate()([head(features), head(keras.layers.ReLU()(features))])
    mixed = keras.layers.BatchNormalization()(mixed)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Add()([mixed, mixed]))
    model = trained_like(keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x)))

    export(model, tmp_path / "model.onnx")

    images = random_images((2, 64, 64, 3))
    assert relative_error(infer(model, images), load_runner(tmp_path / "model.onnx")(images)) <= TOLERANCE


def test_layer_without_a_counterpart(tmp_path: Path) -> None:
    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, keras.layers.UpSampling2D()(repvgg.RepVGGBlock(4)(inputs)))
    with pytest.raises(InputError, match=r"'up_sampling2d\w*' \(UpSampling2D\) has no counterpart"):
        export(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = repvgg.reparameterize(small())
    real = target.write

    def sabotaged(network: Any, path: Path, metadata: Any, settings: Any) -> None:
        kernel = network.get_layer("stage2_block0").kernel
        before = kernel.numpy()
        kernel.assign(before * 1.01)
        real(network, path, metadata, settings)
        kernel.assign(before)

    monkeypatch.setattr(target, "write", sabotaged)
    with pytest.raises(VerificationError, match=r"'model.onnx' was not kept: .* differ"):
        export(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_refusals(tmp_path: Path) -> None:
    model = small()
    with pytest.raises(UnknownNameError, match=r"no export format called 'onxx'\. Did you mean onnx"):
        export(model, tmp_path / "model.onnx", "onxx")
    with pytest.raises(InputError, match="'onnx' is written in float32; 'int4' was asked for"):
        export(model, tmp_path / "model.onnx", precision="int4")
    with pytest.raises(InputError, match=r"ends in '\.onnx'\. Received: 'model.pb'"):
        export(model, tmp_path / "model.pb")
    (tmp_path / "model.onnx").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"already exists .* --force"):
        export(model, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == b"precious"
    export(model, tmp_path / "model.onnx", force=True)
    assert load_runner(tmp_path / "model.onnx").name == "model.onnx"


def test_damaged_onnx_file(tmp_path: Path) -> None:
    export(small(), tmp_path / "model.onnx")
    whole = (tmp_path / "model.onnx").read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FileError, match=r"ONNX Runtime cannot load '.*half.onnx'"):
        load_runner(tmp_path / "half.onnx")
    with pytest.raises(FileError, match="does not exist"):
        load_runner(tmp_path / "none.onnx")


def test_graph_of_other_makers(tmp_path: Path) -> None:
    """A graph that takes channels last is fed so; nothing of ours is in it."""
    helper = onnx.helper
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["x"], ["y"], axes=[1, 2], keepdims=0)],
        "mean",
        [value("x", onnx.TensorProto.FLOAT, ["n", 8, 8, 3])],
        [value("y", onnx.TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    images = random_images((2, 8, 8, 3))
    runner = load_runner(tmp_path / "m.onnx")
    assert runner.input_shape == (8, 8, 3)
    np.testing.assert_allclose(runner(images), images.mean((1, 2)), rtol=1e-5, atol=1e-6)
