"""What is in each target's graph: the network, and nothing else."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exported import deployed, write

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
litert = pytest.importorskip("ai_edge_litert.interpreter")

# A network of 6 blocks, each with stride 2 or 1; constants are not operations.
EXPECTED = {
    # ONNX's and OpenVINO's convolutions and ONNX's classifier bring bias and padding along.
    "onnx": {"Conv": 6, "Relu": 6, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
    "openvino": {"Convolution": 6, "Add": 7, "Relu": 6, "ReduceMean": 1, "MatMul": 1},
    # LiteRT's also bring the activation along; those of stride 2 need their padding before them.
    "litert": {"CONV_2D": 6, "PAD": 5, "MEAN": 1, "FULLY_CONNECTED": 1},
    "savedmodel": {"Conv2D": 6, "BiasAdd": 7, "Relu": 6, "Mean": 1, "MatMul": 1},
}

ADDED = {
    "onnx": {"Cast": 1, "Mul": 1, "Add": 1, "Transpose": 1, "Softmax": 1},
    "openvino": {"Convert": 1, "Multiply": 1, "Add": 1, "Transpose": 1, "Softmax": 1},
    "litert": {"CAST": 1, "MUL": 1, "ADD": 1, "SOFTMAX": 1},
    "savedmodel": {"Cast": 1, "Mul": 1, "AddV2": 1, "Softmax": 1},
}
"""For pixels as input and probabilities as output."""

WEIGHTS = {"onnx": "Cast", "openvino": "Convert", "litert": "DEQUANTIZE"}
"""What stands between a weight in float16 and its convolution; done once, when a runtime loads the file."""


def in_onnx(path: Path) -> Counter[str]:
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["images"]
    assert graph.output[0].name in ("logits", "probabilities")
    return Counter(node.op_type for node in graph.node)


def in_openvino(path: Path) -> Counter[str]:
    model = openvino.Core().read_model(path)
    assert model.inputs[0].get_names() == {"images"}
    assert model.outputs[0].get_names() in ({"logits"}, {"probabilities"})
    found = Counter(node.get_type_name() for node in model.get_ops())
    assert found.pop("Parameter") == found.pop("Result") == 1
    del found["Constant"]
    found["Convolution"] += found.pop("GroupConvolution", 0)
    return found


def in_litert(path: Path) -> Counter[str]:
    # Without the delegate, which would put an operation of its own into the list.
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = litert.Interpreter(str(path), experimental_op_resolver_type=resolver)
    (signature,) = interpreter.get_signature_list().values()
    assert signature["inputs"] == ["images"]
    assert signature["outputs"][0] in ("logits", "probabilities")
    # LiteRT has no public list of a model's operations.
    return Counter(operator["op_name"] for operator in interpreter._get_ops_details())


def in_savedmodel(path: Path) -> Counter[str]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    assert list(loaded.signatures) == ["serving_default"]
    function = loaded.signatures["serving_default"]
    assert list(function.structured_input_signature[1]) == ["images"]
    assert next(iter(function.structured_outputs)) in ("logits", "probabilities")
    # The signature calls the function that was exported.
    graph = function.graph.as_graph_def()
    (exported,) = {field.name: value for field, value in graph.ListFields()}["library"].function
    found = Counter(node.op for node in exported.node_def)
    for plumbing in ("Const", "Identity", "NoOp", "ReadVariableOp"):
        found.pop(plumbing, None)
    return found


READERS: dict[str, Callable[[Path], Counter[str]]] = {
    "onnx": in_onnx,
    "openvino": in_openvino,
    "litert": in_litert,
    "savedmodel": in_savedmodel,
}


@pytest.mark.parametrize("network", ["plain", "grouped"])
@pytest.mark.parametrize("name", list(EXPECTED))
def test_the_graph_holds_what_the_network_is(name: str, network: str, artifact: Any) -> None:
    found = READERS[name](artifact(network, name).path)
    if name == "savedmodel":
        # Grouped convolutions have their bias added in a way that TensorFlow does not fuse.
        added = found.pop("AddV2", 0)
        assert (added > 0) == (network == "grouped")
        found["BiasAdd"] += added
    assert found == EXPECTED[name]


@pytest.mark.parametrize("name", list(EXPECTED))
def test_what_options_add(name: str, tmp_path: Path) -> None:
    path = write(deployed("plain"), tmp_path, name, softmax=True, with_preprocessing=True, batch=1, image_size=64).path
    assert READERS[name](path) == Counter(EXPECTED[name]) + Counter(ADDED[name])


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_what_float16_adds(name: str, artifact: Any) -> None:
    found = READERS[name](artifact("plain", name, "float16").path)
    # A kernel and a bias each for 6 convolutions and the classifier; some formats share equal constants.
    assert 0 < found.pop(WEIGHTS[name]) <= 2 * 7
    assert found == EXPECTED[name]
