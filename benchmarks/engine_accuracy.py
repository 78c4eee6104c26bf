"""How exact the engine is: each tile size on single layers, and whole networks, against float64.

    python benchmarks/engine_accuracy.py
    python benchmarks/engine_accuracy.py --variants RepVGG-A0 RepVGG-B1g4 --sizes 64 75 --batches 1 3 --threads 1 2 3

Relative errors are the largest difference over the largest value that is expected. Weights are random; `--model FILE`
takes a trained network from a .keras file instead.
"""

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

from engine import deployed
from repvgg.engine import Convolution, Plan, compile_plan, host_isa
from repvgg.engine.choose import choose
from repvgg.engine.engine import Engine
from repvgg.engine.program import build
from repvgg.engine.reference import compute, relative_error
from repvgg.engine.schedule import Winograd
from repvgg.targets.native.plan import plan_of

RESULTS = Path(__file__).parent / "results" / "engine_accuracy.json"
CHANNELS, SIDE = 96, 28


def layer_error(layer: Convolution, images: np.ndarray, m: int, isa: str) -> float:
    """The error of one layer alone in tiles of m outputs; 1 for the direct form."""
    plan = Plan("layer", layer.channels_in, (replace(layer, source="images", attention=None),), {"out": layer.name})
    machine = host_isa(isa)
    size = images.shape[1:3]
    schedule = choose(plan, machine, batch=len(images), image_size=size, threads=1, largest_tile=max(m, 1))
    if m > 1:
        (step,) = schedule.steps
        vectors = 1 if layer.channels // machine.lanes % 2 else 2
        tiles = replace(Winograd(m, "tiles", True, vectors, 6, 12, layer.channels_in), rows=6)
        channels = -(-layer.channels_in // machine.lanes) * machine.lanes
        schedule = replace(schedule, steps=(replace(step, choice=tiles, read_channels=channels),))
    with Engine(plan, build(plan, schedule)) as engine:
        return relative_error(engine.outputs(images), compute(plan, images.astype(np.float64)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="*", default=["RepVGG-A0"])
    parser.add_argument("--model", type=Path, help="a deployed .keras file, beside the variants")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 75])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    generator = np.random.default_rng(0)
    isas = ["avx2", "avx512"] if host_isa().name == "avx512" else [host_isa().name]
    found: dict[str, Any] = {"layers": [], "networks": []}

    kernel = (generator.standard_normal((3, 3, CHANNELS, CHANNELS)) / np.sqrt(9 * CHANNELS)).astype(np.float32)
    layers = {"random": Convolution("layer", "images", kernel, np.zeros(CHANNELS, np.float32))}
    plans = {variant: plan_of(deployed(variant)) for variant in arguments.variants}
    if arguments.model:
        import keras

        plans["trained"] = plan_of(keras.models.load_model(arguments.model))
        for layer in plans["trained"].layers:
            if isinstance(layer, Convolution) and layer.strides == (1, 1) and layer.channels_in >= 48:
                layers[f"trained {layer.name}"] = layer
    for name, layer in layers.items():
        # Images as a ReLU leaves them.
        shape = (1, SIDE, SIDE, layer.channels_in)
        images = np.maximum(generator.standard_normal(shape, dtype=np.float32), 0)
        errors = {f"F{m}" if m > 1 else "direct": layer_error(layer, images, m, isas[-1]) for m in (1, 2, 3, 4, 5, 6)}
        found["layers"].append({"layer": name, **errors})
    table = Table("layer", *list(found["layers"][0])[1:])
    for row in found["layers"]:
        table.add_row(row["layer"], *(f"{value:.1e}" for key, value in row.items() if key != "layer"))
    Console().print(table)

    table = Table("network", "size", "batch", "threads", "instruction set", "error of logits")
    for name, plan in plans.items():
        for size in arguments.sizes:
            for batch in arguments.batches:
                images = generator.standard_normal((batch, size, size, 3), dtype=np.float32)
                expected = compute(plan, images.astype(np.float64))
                for threads in arguments.threads:
                    for isa in isas:
                        settings = {"batch": batch, "image_size": size, "threads": threads, "max_isa": isa}
                        with compile_plan(plan, check=False, **settings) as engine:
                            error = relative_error(engine.outputs(images), expected)
                        found["networks"].append({"network": name, **settings, "error": error})
                        table.add_row(name, str(size), str(batch), str(threads), isa, f"{error:.1e}")
    Console().print(table)
    print(f"largest: {max(row['error'] for row in found['networks']):.1e}")
    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
