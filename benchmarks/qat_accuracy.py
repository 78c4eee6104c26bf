"""A network that was trained in 8-bit numbers, beside the network in float32 that it was trained on from.

    repvgg train flowers --qat runs/RepVGG-A0-flowers/best.keras --output runs/qat
    python benchmarks/qat_accuracy.py runs/qat --before runs/RepVGG-A0-flowers/best.keras \\
        --data flowers/val --calibration flowers/train

Everything is compared with the network before: its INT8 file in two runtimes, its own weights where nothing is rounded,
and the network before when it is rounded without training, naively and by the scheme `per-tensor`. All of them have one
scale for a layer's weights.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"


def in_openvino(path: Path, like: Any) -> Any:
    """An ONNX file, run by OpenVINO."""
    import openvino

    from repvgg.targets.openvino.run import OpenVINORunner

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return OpenVINORunner(compiled, path.name, like.metadata)


def contestants(run: Path, before: Any, calibration: np.ndarray) -> Iterator[tuple[str, str, Any]]:
    """What it is, where it runs, and what runs it."""
    import repvgg
    from repvgg.runners import load_runner

    integers = load_runner(run / "int8.onnx")
    yield "trained in 8 bits", "ONNX Runtime", integers
    yield "trained in 8 bits", "OpenVINO", in_openvino(run / "int8.onnx", integers)
    yield "the same weights, unrounded", "Keras", load_runner(run / "deploy.keras")
    with tempfile.TemporaryDirectory() as folder:
        for scheme in ("naive", "per-tensor"):
            for target, ending, where in (("onnx", ".onnx", "ONNX Runtime"), ("openvino", ".xml", "OpenVINO")):
                path = Path(folder, scheme + ending)
                repvgg.export(before, path, target, "int8", calibration, scheme=scheme, max_drop=100)
                yield f"rounded afterwards, {scheme}", where, load_runner(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run with --qat")
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders to measure on")
    parser.add_argument("--before", type=Path, required=True, help="the network that it was trained on from")
    parser.add_argument("--calibration", type=Path, required=True, help="images to round --before with")
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/qat_accuracy_RUN.json if not given")
    arguments = parser.parse_args()

    import repvgg
    from repvgg.data.reading import prepared_batches
    from repvgg.evaluation.labels import labelled_for
    from repvgg.quantization import calibration_images
    from repvgg.runners.classifier import class_logits, preprocessing_of
    from repvgg.runners.keras import KerasRunner
    from repvgg.verification import difference

    before = repvgg.load_model(arguments.before)
    if repvgg.get_metadata(before).form != "deploy":
        before = repvgg.reparameterize(before)
    reference = KerasRunner(before)
    preprocessing = preprocessing_of(reference)
    files = labelled_for(reference.metadata.class_names, arguments.data)
    images = np.concatenate([batch.images for batch in prepared_batches(files.paths, preprocessing, 64)])
    chosen = calibration_images(arguments.calibration, preprocessing, 256)

    def logits(runner: Any) -> np.ndarray:
        return np.concatenate([class_logits(runner, images[start : start + 32]) for start in range(0, len(images), 32)])

    expected = logits(reference)
    accuracy = float(np.mean(expected.argmax(1) == files.labels))
    table = Table("network", "runtime", title=f"One scale a layer, {len(images)} images; {accuracy:.2%} in float32")
    for heading in ("accuracy", "same class", "relative error"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, Any]] = []
    for what, where, runner in contestants(arguments.run, before, chosen):
        received = logits(runner)
        row = {
            "network": what,
            "runtime": where,
            "accuracy": float(np.mean(received.argmax(1) == files.labels)),
            "agreement": float(np.mean(received.argmax(1) == expected.argmax(1))),
            "relative_error": difference(expected, received).relative,
        }
        rows.append(row)
        table.add_row(
            what,
            where,
            *(f"{row[name]:.2%}" for name in ("accuracy", "agreement")),
            f"{row['relative_error']:.1e}",
        )
    Console(width=110).print(table)
    out = arguments.out or RESULTS / f"qat_accuracy_{arguments.run.name}.json"
    out.write_text(json.dumps({"images": len(images), "accuracy_before": accuracy, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
