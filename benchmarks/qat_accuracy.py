"""A network that was trained in 8-bit numbers: its INT8 file beside itself in float32, in two runtimes.

    repvgg train flowers --qat runs/RepVGG-A0-flowers/best.keras --output runs/qat
    python benchmarks/qat_accuracy.py runs/qat --data flowers/val \\
        --naive runs/RepVGG-A0-flowers/best.keras --calibration flowers/train

`--naive` is the network that it was trained on from: rounded after training, with one scale for each tensor, it shows
what training in 8-bit numbers was for. Each INT8 file is compared with its own network in float32.
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

    from repvgg.runners.openvino import OpenVINORunner

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return OpenVINORunner(compiled, path.name, like.metadata)


def contestants(run: Path, naive: Path | None, calibration: np.ndarray | None) -> Iterator[tuple[str, str, Any, Any]]:
    """What it is, where it runs, its network in float32, and the INT8 file."""
    from repvgg.runners import load_runner

    trained, integers = load_runner(run / "deploy.keras"), load_runner(run / "int8.onnx")
    yield "trained in 8 bits", "ONNX Runtime", trained, integers
    yield "trained in 8 bits", "OpenVINO", trained, in_openvino(run / "int8.onnx", integers)
    if naive is not None:
        import repvgg
        from repvgg.runners.keras import KerasRunner

        deployed = repvgg.load_model(naive)
        if repvgg.get_metadata(deployed).form != "deploy":
            deployed = repvgg.reparameterize(deployed)
        with tempfile.TemporaryDirectory() as folder:
            for target, name, what in (("onnx", "m.onnx", "ONNX Runtime"), ("openvino", "m.xml", "OpenVINO")):
                path = Path(folder, name)
                repvgg.export(deployed, path, target, "int8", calibration, scheme="naive", max_drop=100)
                yield "rounded afterwards", what, KerasRunner(deployed), load_runner(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run with --qat")
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders to measure on")
    parser.add_argument("--naive", type=Path, help="the network that was trained on from")
    parser.add_argument("--calibration", type=Path, help="images to choose the ranges of --naive by")
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/qat_accuracy_RUN.json if not given")
    arguments = parser.parse_args()
    if arguments.naive and not arguments.calibration:
        parser.error("--naive needs --calibration: a folder of images like those the network will get.")

    from repvgg.data.reading import prepared_batches
    from repvgg.evaluation.labels import labelled_for
    from repvgg.quantization import calibration_images
    from repvgg.runners import load_runner
    from repvgg.runners.classifier import class_logits, preprocessing_of
    from repvgg.verification import difference

    source = load_runner(arguments.run / "deploy.keras")
    preprocessing = preprocessing_of(source)
    files = labelled_for(source.metadata.class_names, arguments.data)
    images = np.concatenate([batch.images for batch in prepared_batches(files.paths, preprocessing, 64)])
    chosen = calibration_images(arguments.calibration, preprocessing, 256) if arguments.calibration else None

    def logits(runner: Any) -> np.ndarray:
        return np.concatenate([class_logits(runner, images[start : start + 32]) for start in range(0, len(images), 32)])

    table = Table("network", "runtime", title=f"One scale a tensor, {len(images)} images")
    for heading in ("float32", "INT8", "same class", "relative error"):
        table.add_column(heading, justify="right")
    rows: list[dict[str, Any]] = []
    for what, where, reference, integers in contestants(arguments.run, arguments.naive, chosen):
        expected, received = logits(reference), logits(integers)
        row = {
            "network": what,
            "runtime": where,
            "accuracy_float32": float(np.mean(expected.argmax(1) == files.labels)),
            "accuracy_int8": float(np.mean(received.argmax(1) == files.labels)),
            "agreement": float(np.mean(received.argmax(1) == expected.argmax(1))),
            "relative_error": difference(expected, received).relative,
        }
        rows.append(row)
        table.add_row(
            what,
            where,
            *(f"{row[name]:.2%}" for name in ("accuracy_float32", "accuracy_int8", "agreement")),
            f"{row['relative_error']:.1e}",
        )
    Console(width=110).print(table)
    out = arguments.out or RESULTS / f"qat_accuracy_{arguments.run.name}.json"
    out.write_text(json.dumps({"images": len(images), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
