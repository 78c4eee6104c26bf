"""Accuracy, agreement and size of a network in INT8, naively quantized and as this package does it, in each runtime.

    python benchmarks/int8_accuracy.py model.keras --data flowers/val --calibration flowers/train

`model.keras` carries class names and preprocessing; both forms will do. Each is compared with the network in float32 as
the same runtime runs it. `naive` and `per-tensor` have one grid for the weights of a layer, `default` has one for each
output channel. "scaled" is the same function with channels that differ by up to 100 times in range
(`repvgg.quantization.scale_channels`): what trained networks have to a lesser degree, made on purpose. Speed is told
by int8_speed.py, which takes turns.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
TITLE = "INT8 beside float32 in the same runtime"


def measure(model: Any, images: Any, data: Path, targets: list[str], schemes: list[str], scaled: bool) -> list[dict]:
    from repvgg.exporting.int8 import find_int8
    from repvgg.models.metadata import get_metadata
    from repvgg.quantization import SCHEMES, scale_channels
    from repvgg.targets.int8 import INT8_TARGETS

    networks = {"as trained": model, **({"scaled": scale_channels(model)} if scaled else {})}
    rows = []
    for kind, network in networks.items():
        for target in targets:
            for scheme in schemes:
                if INT8_TARGETS[target].lacks(SCHEMES[scheme]):
                    continue
                found = find_int8(
                    network, target, images, get_metadata(model), evaluation=data, max_drop=100, scheme=scheme
                )
                values = found.report.to_dict()
                for name in ("attempts", "max_drop", "passed", "criterion", "network", "speedup"):
                    del values[name]
                rows.append({"network": kind, "name": scheme, **values})
                Console(stderr=True).print(f"{kind}, {found.report.summary()}", soft_wrap=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="a folder of class folders to measure on")
    parser.add_argument("--calibration", type=Path, required=True, help="a folder of images to calibrate with")
    parser.add_argument("--count", type=int, default=256, help="calibration images")
    parser.add_argument("--targets", nargs="*", default=["onnx", "openvino", "litert"])
    parser.add_argument("--schemes", nargs="*", default=["naive", "default", "per-tensor"])
    parser.add_argument("--no-scaled", action="store_true", help="leave out the network that was made hard")
    parser.add_argument("--out", type=Path, help="JSON file; benchmarks/results/int8_accuracy_MODEL.json if not given")
    arguments = parser.parse_args()

    from repvgg.blocks import ReparameterizableBlock
    from repvgg.conversion import reparameterize
    from repvgg.models.layers import all_layers
    from repvgg.models.saving import load_model
    from repvgg.quantization import calibration_images
    from repvgg.runners.classifier import preprocessing_of
    from repvgg.runners.keras import KerasRunner

    model = load_model(arguments.model)
    if any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model)):
        model = reparameterize(model)
    images = calibration_images(arguments.calibration, preprocessing_of(KerasRunner(model)), arguments.count)
    rows = measure(model, images, arguments.data, arguments.targets, arguments.schemes, scaled=not arguments.no_scaled)
    table = Table("network", "runtime", "scheme", title=f"{TITLE}: {arguments.model.stem}, {rows[0]['images']} images")
    for heading in ("float32", "INT8", "agreement", "relative error", "size"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            row["network"],
            row["target"],
            row["name"],
            f"{row['accuracy_float32']:.2%}",
            f"{row['accuracy_int8']:.2%}",
            f"{row['agreement']:.2%}",
            f"{row['relative_error']:.1e}",
            f"{row['size_int8'] / row['size_float32']:.0%}",
        )
    Console(width=120).print(table)
    out = arguments.out or RESULTS / f"int8_accuracy_{arguments.model.stem}.json"
    out.write_text(
        json.dumps({"model": arguments.model.stem, "calibration_images": len(images), "rows": rows}, indent=1)
    )


if __name__ == "__main__":
    main()
