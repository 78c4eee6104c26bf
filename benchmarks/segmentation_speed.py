"""How fast the networks of examples/segmentation are, in both forms and as exported files.

    python benchmarks/segmentation_speed.py prepare FOLDER
    python benchmarks/segmentation_speed.py time FOLDER

Weights are random, which makes no difference to speed. Everything is prepared first; then all files take turns, one
scene of 180 x 240 pixels at a time. Needs the extras onnx and openvino.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path

import repvgg
from repvgg.models.random_statistics import randomize_statistics

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "segmentation_speed.json"
SIZE = (180, 240)
CLASSES = 11


def prepare(folder: Path) -> None:
    """Writes each network in training and deploy form, in ONNX and in OpenVINO's format."""
    sys.path.insert(0, str(ROOT / "examples" / "segmentation"))
    from networks import NETWORKS

    folder.mkdir(parents=True, exist_ok=True)
    architecture = repvgg.get_variant("RepVGG-A0").architecture
    for name, build in NETWORKS.items():
        model = randomize_statistics(build(architecture, SIZE, CLASSES))
        model.save(folder / f"{name}-training.keras")
        deployed = repvgg.reparameterize(model)
        deployed.save(folder / f"{name}-deploy.keras")
        repvgg.export(deployed, folder / f"{name}.onnx", force=True)
        repvgg.export(deployed, folder / f"{name}.xml", "openvino", force=True)
        print(f"{name}: {model.count_params():,} parameters, {deployed.count_params():,} in deploy form", flush=True)


def measure(folder: Path, rounds: int) -> None:
    """Lets all files take turns, and keeps the medians."""
    names = sorted({path.stem.partition("-")[0] for path in folder.glob("*.onnx")})
    files = [f"{name}{end}" for name in names for end in ("-training.keras", "-deploy.keras", ".onnx", ".xml")]
    with contextlib.chdir(folder):
        report = repvgg.benchmark(files, rounds=rounds)
    for row, figures in report.measured():
        spread = figures.milliseconds_per_image
        print(f"{row.network.name:24} {spread.median:7.1f} ms ({spread.low:.1f} to {spread.high:.1f})")
    print(report.machine, report.load, sep="\n")
    RESULTS.write_text(json.dumps(report.to_dict(), indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.step == "prepare":
        prepare(arguments.folder)
    else:
        measure(arguments.folder, arguments.rounds)


if __name__ == "__main__":
    main()
