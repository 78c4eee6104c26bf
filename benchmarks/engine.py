"""The engine beside ONNX Runtime and OpenVINO: the same network, threads and images, in turn.

    python benchmarks/engine.py                                   # A0, batch 1 and 16, one and two threads
    python benchmarks/engine.py --variants RepVGG-A2 --beside-resnet50
    python benchmarks/engine.py --variants RepVGG-B1 RepVGG-D2se:320 --batches 1 8
    python scripts/without_vnni python benchmarks/engine.py       # all of them with their kernels for AVX2

A round runs each of them once (enough times to take a twentieth of a second), one after the other; ratios are those of
a round, and medians are over rounds in which other processes used less than 5 % of the machine, if there are enough of
these. CPU time of one thread (`--cpu-time`) depends on others only through caches and memory. Needs the extras engine,
onnx and openvino.
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
import onnxruntime
import openvino
import psutil
from rich.console import Console
from rich.table import Table

import repvgg
from repvgg.engine import compile_plan
from repvgg.targets.native.plan import plan_of

RESULTS = Path(__file__).parent / "results" / "engine.json"
ENGINE, ORT, OPENVINO = "engine", "ONNX Runtime", "OpenVINO"
RESNET = "ResNet-50 in "
QUIET = 0.05

REST = 0.06
"""Seconds before each contestant: ONNX Runtime's threads go on spinning for 40 ms, on the next one's cores."""

Run = Callable[[], np.ndarray]


def deployed(variant: str) -> Any:
    """A deploy form with biases that are not zero."""
    model = repvgg.create_model(variant, deploy=True, input_shape=(None, None, 3))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("bias"):
            variable.assign(0.1 * generator.standard_normal(variable.shape))
    return model


def in_onnxruntime(path: Path, images: np.ndarray, threads: int) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})[0]


def in_openvino(path: Path, images: np.ndarray, threads: int) -> Run:
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(images.shape))
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({0: images})[0]


class Machine:
    """How much of the machine others use, from one look to the next."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.look()

    def look(self) -> float:
        times, own = psutil.cpu_times(), sum(self.process.cpu_times()[:2])
        busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
        now = (time.perf_counter(), busy, own)
        before, self.last = getattr(self, "last", now), now
        seconds = (now[0] - before[0]) * (psutil.cpu_count() or 1)
        return max(0.0, (now[1] - before[1]) - (now[2] - before[2])) / seconds if seconds else 0.0


def measure(runs: dict[str, Run], seconds: float, cpu_time: bool) -> dict[str, Any]:
    """Milliseconds of every run in every round, and what others used meanwhile."""
    clock = time.process_time if cpu_time else time.perf_counter
    for run in runs.values():
        run()
    start = time.perf_counter()
    runs[ENGINE]()
    times_each = max(1, int(0.05 / (time.perf_counter() - start)))
    machine, end = Machine(), time.monotonic() + seconds
    times: dict[str, list[float]] = {name: [] for name in runs}
    foreign: list[float] = []
    while time.monotonic() < end or len(foreign) < 3:
        machine.look()
        order = list(runs) if len(foreign) % 2 == 0 else list(reversed(runs))
        for name in order:
            time.sleep(REST)
            runs[name]()
            began = clock()
            for _ in range(times_each):
                runs[name]()
            times[name].append((clock() - began) / times_each * 1e3)
        foreign.append(machine.look())
    quiet = [index for index, share in enumerate(foreign) if share < QUIET]
    kept = quiet if len(quiet) >= 5 else range(len(foreign))
    return {
        "rounds": len(kept),
        "foreign": statistics.median(foreign[index] for index in kept),
        "times": {name: [values[index] for index in kept] for name, values in times.items()},
    }


def summary(found: dict[str, Any], against: list[str]) -> dict[str, Any]:
    """Medians, spread, and the ratio of the better peer's time to the engine's, round by round."""
    times = found["times"]
    ratios = [min(peers) / own for own, *peers in zip(times[ENGINE], *(times[name] for name in against), strict=True)]
    tenths = statistics.quantiles(ratios, n=10) if len(ratios) > 1 else ratios * 9
    return {
        "rounds": found["rounds"],
        "foreign": round(found["foreign"], 3),
        "milliseconds": {name: round(statistics.median(values), 3) for name, values in times.items()},
        "least": {name: round(min(values), 3) for name, values in times.items()},
        "ratio": round(statistics.median(ratios), 3),
        "tenths": [round(tenths[0], 3), round(tenths[-1], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=["RepVGG-A0"], help="names, with :SIZE where it is not 224")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=8.0, help="of each row")
    parser.add_argument("--cpu-time", action="store_true", help="count processor time instead of time that passes")
    parser.add_argument("--beside-resnet50", action="store_true")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": unknown")
    found: dict[str, Any] = {
        "processor": cpu.partition(":")[2].strip(),
        "imitated": os.environ.get("REPVGG_PROCESSOR", "none"),
        "clock": "processor time" if arguments.cpu_time else "time that passes",
        "versions": {ORT: onnxruntime.__version__, OPENVINO: openvino.__version__.split("-")[0]},
        "rows": [],
    }
    rows: list[dict[str, Any]] = found["rows"]
    arguments.results.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for entry in arguments.variants:
            variant, _, side = entry.partition(":")
            size = int(side or 224)
            model, path = deployed(variant), Path(folder, "network.onnx")
            plan = plan_of(model)
            repvgg.export(model, path, force=True)
            if arguments.beside_resnet50:
                import resnet50

                resnet50.write(Path(folder, "resnet50.onnx"))
            for batch in arguments.batches:
                for threads in arguments.threads:
                    row = one(plan, Path(folder), batch, size, threads, arguments)
                    rows.append({"variant": variant, "size": size, "batch": batch, "threads": threads, **row})
                    print(json.dumps(rows[-1]), flush=True)
                    # What is measured stays, even if the next row is not.
                    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    show(rows)


def one(plan: Any, folder: Path, batch: int, size: int, threads: int, arguments: argparse.Namespace) -> dict[str, Any]:
    images = np.random.default_rng(0).standard_normal((batch, size, size, 3), dtype=np.float32)
    turned = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    began = time.perf_counter()
    engine = compile_plan(plan, batch=batch, image_size=size, threads=threads, check=False)
    compiled = time.perf_counter() - began
    path = folder / "network.onnx"
    runs: dict[str, Run] = {
        ENGINE: lambda: engine(images),
        ORT: in_onnxruntime(path, turned, threads),
        OPENVINO: in_openvino(path, turned, threads),
    }
    answers = {name: run() for name, run in runs.items()}
    if arguments.beside_resnet50:
        other = folder / "resnet50.onnx"
        runs[RESNET + ORT] = in_onnxruntime(other, turned, threads)
        runs[RESNET + OPENVINO] = in_openvino(other, turned, threads)
    found = measure(runs, arguments.seconds, arguments.cpu_time)
    row = summary(found, [ORT, OPENVINO])
    if arguments.beside_resnet50:
        row["resnet50"] = summary(found, [RESNET + ORT, RESNET + OPENVINO])["ratio"]
    scale = float(np.abs(answers[ORT]).max())
    row |= {
        "isa": engine.isa.name,
        "error": float(np.abs(answers[ENGINE] - answers[ORT]).max()) / scale,
        "compile_seconds": round(compiled, 2),
        "packed_over_weights": round(engine.memory["constants"] / plan.weight_bytes, 2),
    }
    engine.close()
    return row


def show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "batch", "threads", "rounds", *rows[0]["milliseconds"], "ratio", "others used")
    for row in rows:
        table.add_row(
            f"{row['variant']} {row['size']}",
            str(row["batch"]),
            str(row["threads"]),
            str(row["rounds"]),
            *(f"{value:.2f}" for value in row["milliseconds"].values()),
            f"{row['ratio']:.2f}",
            f"{row['foreign']:.0%}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
