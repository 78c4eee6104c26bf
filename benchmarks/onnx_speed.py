"""The ONNX file of this package beside PyTorch's own of the same network, in ONNX Runtime.

    python benchmarks/onnx_speed.py
    python benchmarks/onnx_speed.py --variant RepVGG-A0 --size 224 --batches 1 16 --rounds 30

PyTorch exports a plain stack of Conv2d and ReLU with the same weights. Both files run in the same ONNX Runtime with the
same settings, in turn (A B, B A, ...), and their answers have to agree. Needs the extras onnx and torch.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.table import Table

import repvgg

RESULTS = Path(__file__).parent / "results" / "onnx_speed.json"


def torch_twin(deployed: Any) -> Any:
    """The deploy form in PyTorch, with the same weights."""
    import keras
    import torch

    layers: list[Any] = []
    for layer in deployed.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = layer.get_weights()
            size, groups = layer.kernel_size, layer.groups
            convolution = torch.nn.Conv2d(
                kernel.shape[2] * groups, kernel.shape[3], size, layer.strides, size[0] // 2, groups=groups
            )
            convolution.weight.data = torch.from_numpy(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
            convolution.bias.data = torch.from_numpy(bias)
            layers += [convolution, torch.nn.ReLU()]
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            linear = torch.nn.Linear(*kernel.shape)
            linear.weight.data, linear.bias.data = (
                torch.from_numpy(np.ascontiguousarray(kernel.T)),
                torch.from_numpy(bias),
            )
            layers += [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), linear]
    return torch.nn.Sequential(*layers).eval()


def export_from_torch(twin: Any, path: Path, size: int) -> str:
    """Writes the file; says by which of PyTorch's exporters."""
    import importlib.util

    import torch

    # The newer exporter needs a package of its own.
    newer = importlib.util.find_spec("onnxscript") is not None
    arguments: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamo": newer}
    if not newer:
        arguments["dynamic_axes"] = {"images": {0: "batch"}, "logits": {0: "batch"}}
    else:
        arguments["dynamic_shapes"] = ({0: torch.export.Dim("batch")},)
        arguments["external_data"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(twin, (torch.zeros(2, 3, size, size),), str(path), **arguments)
    return "torch.onnx.export(dynamo=True)" if newer else "torch.onnx.export(dynamo=False)"


def session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def operators(path: Path) -> dict[str, int]:
    return dict(Counter(node.op_type for node in onnx.load(path).graph.node))


def measure(sessions: dict[str, Any], batch: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each run; every second round begins with the other one."""
    images = np.random.default_rng(0).standard_normal((batch, 3, size, size), dtype=np.float32)
    answers = [one.run(None, {"images": images})[0] for one in sessions.values()]
    error = float(np.abs(answers[0] - answers[1]).max() / np.abs(answers[0]).max())
    if not error < 1e-4:
        raise SystemExit(f"The two files give different answers: relative error {error:.1e}.")
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for round_ in range(rounds + 2):
        order = list(sessions) if round_ % 2 == 0 else list(reversed(sessions))
        for name in order:
            start = time.perf_counter()
            sessions[name].run(None, {"images": images})
            if round_ >= 2:
                times[name].append((time.perf_counter() - start) * 1e3)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-A0")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    deployed = repvgg.create_model(arguments.variant, deploy=True, input_shape=(arguments.size, arguments.size, 3))
    generator = np.random.default_rng(0)
    for variable in deployed.weights:
        # Fresh biases are all zero, which PyTorch's exporter would share between layers.
        if variable.path.endswith("bias"):
            variable.assign(0.1 * generator.standard_normal(variable.shape))
    with tempfile.TemporaryDirectory() as folder:
        paths = {"this package": Path(folder, "ours.onnx"), "PyTorch": Path(folder, "torch.onnx")}
        repvgg.export(deployed, paths["this package"])
        exporter = export_from_torch(torch_twin(deployed), paths["PyTorch"], arguments.size)
        sessions = {name: session(path, arguments.threads) for name, path in paths.items()}
        found: dict[str, Any] = {
            "variant": arguments.variant,
            "size": arguments.size,
            "threads": arguments.threads,
            "onnxruntime": onnxruntime.__version__,
            "exporter": exporter,
            "operators": {name: operators(path) for name, path in paths.items()},
            "rows": [],
        }
        table = Table(
            "batch", title=f"{arguments.variant}, {arguments.size} px, ONNX Runtime {onnxruntime.__version__}"
        )
        for heading in (*paths, "PyTorch's time over ours"):
            table.add_column(heading, justify="right")
        for batch in arguments.batches:
            times = measure(sessions, batch, arguments.size, arguments.rounds)
            # Both of a round ran under the same conditions, so rounds are compared, not medians.
            ratios = [theirs / ours for ours, theirs in zip(*times.values(), strict=True)]
            found["rows"].append(
                {
                    "batch": batch,
                    "milliseconds": {name: statistics.median(values) for name, values in times.items()},
                    "ratio": statistics.median(ratios),
                    "quartiles": statistics.quantiles(ratios, n=4)[::2],
                }
            )
            table.add_row(
                str(batch),
                *(f"{statistics.median(values):.2f} ms" for values in times.values()),
                f"{statistics.median(ratios):.3f}",
            )
    Console().print(table)
    for name, counts in found["operators"].items():
        print(f"{name}: {counts}")
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
