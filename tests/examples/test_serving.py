"""The examples of serving, run as a person runs them: a process of their own, which knows nothing of this package."""

import ast
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exported import NETWORKS, TOLERANCES, deployed, write
from helpers import infer, random_images, relative_error
from repvgg.exporting import export
from repvgg.targets import TARGETS
from repvgg.targets.int8 import INT8_TARGETS
from sampling import sampled
from serving import (
    CLASSES,
    EXAMPLES,
    FORMS,
    ROOT,
    SERVING,
    TOLERANCE,
    WEB,
    Classes,
    assert_same,
    expected,
    served,
)

CASES = [
    (target, form)
    for target in EXAMPLES
    for form in FORMS
    # A SavedModel of the other form goes through the server below: the same lines without the seconds TensorFlow takes
    # to start.
    if (target in INT8_TARGETS if form == "int8" else (target, form) != ("savedmodel", "normalized to logits"))
]

QUICK = [(target, form) for target, form in CASES if target == "onnx" or form == "int8"]
"""Each form in one runtime, and each runtime once."""


def run_example(target: str, *arguments: object) -> list[Classes]:
    """The classes printed for each picture by the example of a target."""
    return run_script(EXAMPLES[target][0], *arguments)


def run_script(script: str, *arguments: object) -> list[Classes]:
    """The classes that an example prints for each picture."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    finished = subprocess.run(
        [sys.executable, SERVING / script, *map(str, arguments)],
        env={**environment, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    results: list[Classes] = []
    for line in finished.stdout.splitlines():
        if not line.startswith(" "):
            results.append([])
            continue
        probability, name = line.split(maxsplit=1)
        results[-1].append((name, float(probability.removesuffix("%")) / 100))
    return results


def test_pictures_are_told_apart(network: Any, pictures: list[Path]) -> None:
    """Otherwise the comparisons below would compare nothing; and no two classes are close enough to swap."""
    found = expected(network, pictures)
    assert len({classes[0][0] for classes in found}) > 1
    for classes in found:
        probabilities = np.array([probability for _, probability in classes])
        assert np.diff(-probabilities).min() > 10 * TOLERANCE


def test_each_target_has_an_example_and_the_page_names_it() -> None:
    # A `.repvgg` file is run by this package itself, an object file by a program in C (tests/targets/test_object.py).
    by_others = {name for name, target in TARGETS.items() if target.adapts} - {"native", "object"}
    assert set(EXAMPLES) == by_others
    scripts = {script for script, _ in EXAMPLES.values()} | {"opencv_dnn.py", "ncnn_runtime.py"}
    assert scripts == {path.name for path in SERVING.glob("*.py")}
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    assert [script for script in scripts if script not in text] == []


def test_examples_stand_alone_and_share_what_is_the_same() -> None:
    shared: dict[str, set[str]] = {"read_pixels": set(), "normalized": set(), "best_classes": set()}
    for script in SERVING.glob("*.py"):
        text = script.read_text(encoding="utf-8")
        assert "import repvgg" not in text
        assert "from repvgg" not in text
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name in shared:
                shared[node.name].add(str(ast.get_source_segment(text, node)))
    assert {name: len(texts) for name, texts in shared.items()} == dict.fromkeys(shared, 1)


@pytest.mark.parametrize(("target", "form"), sampled(CASES, QUICK))
def test_example_says_what_predict_says(
    target: str, form: str, network: Any, artifacts: Any, pictures: list[Path]
) -> None:
    """INT8 is compared with the same file, whose answers are its own; everything else with the Keras model."""
    artifact = artifacts(target, form)
    arguments = [artifact, "local", *pictures] if target == "savedmodel" else [artifact, *pictures]
    assert_same(run_example(target, *arguments), expected(artifact if form == "int8" else network, pictures))


@pytest.fixture
def fixed(network: Any, tmp_path: Path) -> Path:
    """A file of fixed size, with what its metadata say beside it."""
    path = export(network, tmp_path / "net" / "model.onnx", batch=1, image_size=48).path
    subprocess.run([sys.executable, WEB / "prepare.py", path, tmp_path], check=True, timeout=300)
    return tmp_path / "model.onnx"


def test_opencv(fixed: Path, network: Any, pictures: list[Path]) -> None:
    pytest.importorskip("cv2")
    assert_same(run_script("opencv_dnn.py", fixed, *pictures), expected(network, pictures))


@pytest.mark.parametrize("name", sampled(NETWORKS, ["grouped", "fixed size"]))
def test_opencv_reads_fixed_sizes_exactly_and_open_ones_from_5_on(name: str, tmp_path: Path) -> None:
    """As docs/serving.md says."""
    cv2 = pytest.importorskip("cv2")
    model = deployed(name)
    height, width, channels = (size or 45 for size in model.input_shape[1:])
    images = random_images((1, height, width, channels))
    for precision in ("float32", "float16"):
        path = write(model, tmp_path, "onnx", precision, batch=1, image_size=(height, width), force=True).path
        opencv = cv2.dnn.readNetFromONNX(str(path))
        opencv.setInput(images.transpose(0, 3, 1, 2).copy())
        # The order of summation, or the rounding of the weights.
        assert relative_error(infer(model, images), opencv.forward()) <= TOLERANCES[precision]
    if name == "plain":
        opened = write(model, tmp_path, "onnx", force=True).path
        if int(cv2.__version__.partition(".")[0]) < 5:
            with pytest.raises(cv2.error, match="Gemm"):
                cv2.dnn.readNetFromONNX(str(opened))
        else:
            opencv = cv2.dnn.readNetFromONNX(str(opened))
            opencv.setInput(images.transpose(0, 3, 1, 2).copy())
            assert relative_error(infer(model, images), opencv.forward()) <= TOLERANCES["float32"]


def test_ncnn(fixed: Path, network: Any, pictures: list[Path]) -> None:
    pytest.importorskip("ncnn")
    pytest.importorskip("pnnx")
    converter = Path(sys.executable).with_name("pnnx")
    arguments = [converter, fixed.name, "inputshape=[1,3,48,48]", "fp16=0"]
    subprocess.run(arguments, cwd=fixed.parent, check=True, capture_output=True, timeout=300)
    artifact = fixed.with_name("model.ncnn.param")
    assert_same(run_script("ncnn_runtime.py", artifact, *pictures), expected(network, pictures))


def test_signature_of_tensorflow_serving(artifacts: Any) -> None:
    import tensorflow as tf

    for form, dtype, output in (
        ("pixels to probabilities", tf.uint8, "probabilities"),
        ("normalized to logits", tf.float32, "logits"),
    ):
        signatures = tf.saved_model.load(artifacts("savedmodel", form)).signatures
        assert list(signatures) == ["serving_default"]
        signature = signatures["serving_default"]
        inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
        assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in inputs.items()} == {
            "images": (dtype, [None, None, None, 3])
        }
        assert {name: (spec.dtype, spec.shape.as_list()) for name, spec in outputs.items()} == {
            output: (tf.float32, [None, len(CLASSES)])
        }


@pytest.mark.parametrize("form", ["pixels to probabilities", "normalized to logits"])
def test_request_to_a_server(form: str, network: Any, artifacts: Any, pictures: list[Path]) -> None:
    """A server that knows of TensorFlow Serving's interface what the example uses of it: a row an instance."""
    import tensorflow as tf

    artifact = artifacts("savedmodel", form)
    model = tf.saved_model.load(artifact)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            signature = model.signatures[request.pop("signature_name")]
            images = np.array(request.pop("instances"))
            known = self.path == "/v1/models/flowers:predict" and not request
            dtype = signature.structured_input_signature[1]["images"].dtype
            (scores,) = signature(images=tf.constant(images, dtype)).values()
            answer = json.dumps({"predictions": scores.numpy().tolist()}).encode()
            self.send_response(200 if known else 400)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: Any) -> None:
            pass

    with served(Handler) as address:
        found = run_example("savedmodel", artifact, f"{address}/v1/models/flowers:predict", *pictures)
    assert_same(found, expected(network, pictures))
