"""Accuracy, agreement and size of a network in INT8, naively quantized and as this package does it, in each runtime.

    python benchmarks/int8_accuracy.py model.keras --data flowers/val --calibration flowers/train

`model.keras` carries class names and preprocessing; both forms will do. Each is compared with the network in float32 as
the same runtime runs it. `naive` and `per-tensor` have one grid for the weights of a layer, `default` has one for each
output channel. "scaled" is the same function with channels that differ by up to 100 times in range
(`repvgg.quantization.scale_channels`): what trained networks have to a lesser degree, made on purpose. Speed is told
by int8_speed.py, which takes turns.

Every file is run twice: as the machine is, and, where it can be imitated (scripts/without_vnni), by the runtimes'
kernels for processors with AVX2 and no VNNI. Rows that are in the JSON file already stay, those that are measured again
are replaced, so a long table can be made in parts: --targets, --schemes, --processor.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
RESULTS = HERE / "results"
WITHOUT_VNNI = HERE.parent / "scripts" / "without_vnni"
TITLE = "INT8 beside float32 in the same runtime"
KEYS = ("network", "target", "name", "processor")
"""What tells rows apart."""


def files(
    networks: dict[str, Any],
    images: np.ndarray,
    shown: tuple[np.ndarray, np.ndarray],
    arguments: argparse.Namespace,
    folder: Path,
) -> Iterator[tuple[dict[str, Any], Path]]:
    """Each artifact, written to `folder`, with what was measured while it was made."""
    from repvgg.exporting.int8 import find_int8
    from repvgg.models.metadata import get_metadata
    from repvgg.quantization import SCHEMES
    from repvgg.targets import TARGETS
    from repvgg.targets.int8 import INT8_TARGETS

    for kind, network in networks.items():
        metadata = get_metadata(network)
        for target in arguments.targets:
            quantizer = INT8_TARGETS[target]
            for scheme in arguments.schemes:
                if quantizer.lacks(SCHEMES[scheme]):
                    continue
                found = find_int8(
                    network,
                    target,
                    images,
                    metadata,
                    evaluation=shown,
                    max_drop=100,
                    scheme=scheme,
                    processor=arguments.processor,
                )
                values = found.report.to_dict()
                for name in ("attempts", "max_drop", "passed", "criterion", "network", "speedup"):
                    del values[name]
                path = folder / f"{kind}-{target}-{scheme}{TARGETS[target].suffix}".replace(" ", "-")
                quantizer.save(found.artifact, path, metadata)
                Console(stderr=True).print(f"{kind}, {found.report.summary()}", soft_wrap=True)
                yield {"network": kind, "name": scheme, **values}, path


def without_vnni(paths: list[Path], images: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """Logits (N, classes) of each file, by its name, as runtimes calculate them where there is no VNNI."""
    np.save(folder / "images.npy", images)
    command = [sys.executable, WITHOUT_VNNI, sys.executable, HERE / "int8_answers.py", folder / "images.npy"]
    subprocess.run([*command, folder / "answers.npz", *paths], check=True)
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


def float_logits(model: Any, target: str, images: np.ndarray, folder: Path) -> np.ndarray:
    """Logits of the network in float32 in a target's own runtime."""
    from repvgg.models.metadata import get_metadata
    from repvgg.runners import load_runner
    from repvgg.runners.classifier import class_logits
    from repvgg.targets import TARGETS, Settings

    path = folder / f"float-{target}{TARGETS[target].suffix}"
    import_module(TARGETS[target].module).write(model, path, get_metadata(model), Settings())
    runner = load_runner(path)
    return np.concatenate([class_logits(runner, images[start : start + 32]) for start in range(0, len(images), 32)])


def measure(model: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    from repvgg.data.reading import prepared_batches
    from repvgg.evaluation.labels import labelled_for
    from repvgg.quantization import calibration_images, scale_channels
    from repvgg.runners.classifier import preprocessing_of
    from repvgg.runners.keras import KerasRunner

    reference = KerasRunner(model)
    preprocessing = preprocessing_of(reference)
    images = calibration_images(arguments.calibration, preprocessing, arguments.count)
    networks = {"as trained": model, **({} if arguments.no_scaled else {"scaled": scale_channels(model)})}
    labelled = labelled_for(reference.metadata.class_names, arguments.data)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shown = np.concatenate([batch.images for batch in prepared_batches(labelled.paths, preprocessing, 64)])
        made = list(files(networks, images, (shown, labelled.labels), arguments, folder))
        if arguments.no_avx2:
            return [row for row, _ in made]
        answers = without_vnni([path for _, path in made], shown, folder)
        expected = {target: float_logits(model, target, shown, folder).argmax(axis=1) for target in arguments.targets}
        for row, path in made:
            guesses = answers[path.name].argmax(axis=1)
            row["avx2"] = {
                "accuracy_int8": float(np.mean(guesses == labelled.labels)),
                "agreement": float(np.mean(guesses == expected[row["target"]])),
            }
    return [row for row, _ in made]


def show(rows: list[dict[str, Any]], title: str) -> None:
    table = Table("network", "runtime", "scheme", "made for", title=title)
    for heading in ("float32", "INT8", "agreement", "INT8, AVX2", "agreement, AVX2", "size"):
        table.add_column(heading, justify="right")
    for row in rows:
        elsewhere = row.get("avx2") or {}
        table.add_row(
            row["network"],
            row["target"],
            row["name"],
            row["processor"],
            f"{row['accuracy_float32']:.2%}",
            f"{row['accuracy_int8']:.2%}",
            f"{row['agreement']:.2%}",
            *(f"{elsewhere[name]:.2%}" if elsewhere else "-" for name in ("accuracy_int8", "agreement")),
            f"{row['size_int8'] / row['size_float32']:.0%}",
        )
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders to measure on")
    parser.add_argument("--calibration", type=Path, required=True, help="a folder of images to calibrate with")
    parser.add_argument("--count", type=int, default=256, help="calibration images")
    parser.add_argument("--targets", nargs="*", default=["onnx", "openvino", "litert"])
    parser.add_argument("--schemes", nargs="*", default=["naive", "default", "per-tensor"])
    parser.add_argument("--processor", default="portable", help="what the files are made for")
    parser.add_argument("--no-scaled", action="store_true", help="leave out the network that was made hard")
    parser.add_argument("--no-avx2", action="store_true", help="do not run the files as without VNNI")
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/int8_accuracy_MODEL.json if not given")
    arguments = parser.parse_args()

    from repvgg.base.processor import overflows
    from repvgg.blocks import ReparameterizableBlock
    from repvgg.conversion import reparameterize
    from repvgg.models.layers import all_layers
    from repvgg.models.saving import load_model

    model = load_model(arguments.model)
    if any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model)):
        model = reparameterize(model)
    rows = measure(model, arguments)
    show(rows, f"{TITLE}: {arguments.model.stem}, {rows[0]['images']} images")
    out = arguments.out or RESULTS / f"int8_accuracy_{arguments.model.stem}.json"
    measured = {tuple(row[key] for key in KEYS) for row in rows}
    before = json.loads(out.read_text())["rows"] if out.exists() else []
    kept = [row for row in before if tuple(row.get(key) for key in KEYS) not in measured]
    result = {
        "model": arguments.model.stem,
        "source": model.repvgg_metadata.source,
        "machine": "x86 without VNNI" if overflows() else "with VNNI",
        "calibration_images": arguments.count,
        "rows": [*kept, *rows],
    }
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
