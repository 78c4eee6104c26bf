"""Images per second of one network in float32 and INT8, in several runtimes and in the engine, 2 threads each.

    python benchmarks/int8_speed.py                      # RepVGG-A0, 224 px, batches of 1 and 16
    python benchmarks/int8_speed.py --model model.keras  # a network of your own

The contestants take turns, so that what else the machine does hits all of them; medians are compared. A turn is a call
that is not counted, which wakes threads and fills caches, and five that are: a network in use runs again and again, and
some runtimes' threads fall asleep sooner than others'. The weights are
random unless a model is given: they make no difference to speed. Each runtime is used as it comes, with its number of
threads set; OpenVINO's float32 is float32 (it would calculate in bfloat16 on CPUs that can).
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "int8_speed.json"
REFERENCE = "ONNX Runtime float32"
WARM_UP = 3
CALLS = 5
"""Counted calls in a turn."""

REST = 0.06
"""Seconds between two contestants: the threads of the one before go on spinning, ONNX Runtime's for 40 ms."""

Call = Callable[[np.ndarray], Any]


def onnx_call(path: Path, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda images: session.run(None, {name: images})


def openvino_call(path: Path, threads: int) -> Call:
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    return lambda images: compiled([images])


def litert_call(path: Path, threads: int, shape: tuple[int, ...]) -> Call:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    index = interpreter.get_input_details()[0]["index"]
    interpreter.resize_tensor_input(index, shape)
    interpreter.allocate_tensors()

    def call(images: np.ndarray) -> None:
        interpreter.set_tensor(index, images)
        interpreter.invoke()

    return call


def write_all(model: Any, folder: Path, images: np.ndarray, scheme: str) -> dict[str, Path]:
    """Every artifact. How good they are is another script's matter, so no accuracy is asked for."""
    from importlib import import_module

    from repvgg.models.metadata import get_metadata
    from repvgg.quantization import SCHEMES
    from repvgg.quantization.prepare import prepare
    from repvgg.targets import TARGETS, Settings
    from repvgg.targets.int8 import INT8_TARGETS

    metadata, chosen = get_metadata(model), SCHEMES[scheme]
    prepared = prepare(model, images, chosen)
    paths = {}
    for name, target in INT8_TARGETS.items():
        for precision in ("float32", "int8"):
            path = paths[f"{name} {precision}"] = folder / f"{precision}{TARGETS[name].suffix}"
            if precision == "float32":
                import_module(TARGETS[name].module).write(model, path, metadata, Settings())
            else:
                target.save(target.quantize(prepared, images, chosen, (), Settings()), path, metadata)
    return paths


def measure(
    plan: Any, paths: dict[str, Path], batch: int, size: int, threads: int, rounds: int
) -> dict[str, dict[str, float]]:
    from repvgg.engine import compile_plan

    last = np.random.default_rng(0).standard_normal((batch, size, size, 3)).astype(np.float32)
    first = np.ascontiguousarray(last.transpose(0, 3, 1, 2))
    contestants: dict[str, tuple[Call, np.ndarray]] = {
        REFERENCE: (onnx_call(paths["onnx float32"], threads), first),
        "OpenVINO float32": (openvino_call(paths["openvino float32"], threads), first),
        "LiteRT float32": (litert_call(paths["litert float32"], threads, last.shape), last),
        "Engine float32": (compile_plan(plan, batch=batch, image_size=size, threads=threads), last),
        "ONNX Runtime INT8": (onnx_call(paths["onnx int8"], threads), first),
        "OpenVINO INT8": (openvino_call(paths["openvino int8"], threads), first),
        "LiteRT INT8": (litert_call(paths["litert int8"], threads, last.shape), last),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(WARM_UP + rounds):
        for name, (call, images) in contestants.items():
            time.sleep(REST)
            call(images)
            for _ in range(CALLS):
                start = time.perf_counter()
                call(images)
                if turn >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        name: {
            "milliseconds": 1e3 * medians[name],
            "fastest": 1e3 * min(seconds[name]),
            "slowest": 1e3 * max(seconds[name]),
            "images_per_second": batch / medians[name],
            "times_reference": medians[REFERENCE] / medians[name],
        }
        for name in contestants
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a .keras file; RepVGG-A0 with random weights if not given")
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    import repvgg
    from repvgg.blocks import ReparameterizableBlock
    from repvgg.models.layers import all_layers
    from repvgg.targets.native.plan import plan_of

    if arguments.model:
        model = repvgg.load_model(arguments.model)
    else:
        model = repvgg.create_model(arguments.variant, deploy=True)
    if any(isinstance(layer, ReparameterizableBlock) for layer in all_layers(model)):
        model = repvgg.reparameterize(model)
    images = np.random.default_rng(1).standard_normal((8, arguments.size, arguments.size, 3)).astype(np.float32)
    results: dict[str, Any] = {"network": model.name, "size": arguments.size, "threads": arguments.threads}
    with tempfile.TemporaryDirectory() as folder:
        paths, plan = write_all(model, Path(folder), images, "per-channel"), plan_of(model)
        for batch in arguments.batches:
            found = measure(plan, paths, batch, arguments.size, arguments.threads, arguments.rounds)
            results[f"batch {batch}"] = found
            table = Table("runtime", title=f"{arguments.size} px, batch {batch}, {arguments.threads} threads")
            for heading in ("ms", "fastest to slowest", "images/s", f"times {REFERENCE}"):
                table.add_column(heading, justify="right")
            for name, values in found.items():
                table.add_row(
                    name,
                    f"{values['milliseconds']:.1f}",
                    f"{values['fastest']:.1f} to {values['slowest']:.1f}",
                    f"{values['images_per_second']:.0f}",
                    f"{values['times_reference']:.2f}",
                )
            Console(width=110).print(table)
    arguments.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
