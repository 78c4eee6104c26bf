"""Memory and time of loading a checkpoint: `repvgg.load_checkpoint` beside `torch.load` and `load_state_dict`.

    python benchmarks/load_checkpoint.py [--variant RepVGG-B3] [--repeats 5]

Writes a training-form file of that network with random weights in the official names, then loads it in one fresh
process a row and repetition. Peak memory is the process's largest resident size, with and without that of a process
which only imports the same libraries. The limit is 2.5 times the file's size above the imports.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

LIMIT = 2.5
_CODE = """
import json, resource, sys
path, what = sys.argv[1:]
sys.path.insert(0, {here!r})
import load_checkpoint
seconds = load_checkpoint.measure(path, what)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({{"seconds": seconds, "peak": peak}}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="RepVGG-B3")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pth"
        # In a process of its own: a child's peak begins with the size that its parent had.
        _run(path, f"write {arguments.variant}")
        size = path.stat().st_size
        print(f"{arguments.variant}, training form, official names, random weights: {size:,} bytes\n")
        print(f"{'':42} {'seconds, median':>16} {'peak MB':>8} {'x file':>7} {'above imports':>14}")
        worst = 0.0
        for library in ("repvgg", "torch"):
            base = _run(path, f"{library} imports")
            loads = [_run(path, f"{library} load") for _ in range(arguments.repeats)]
            peak = max(row["peak"] for row in loads)
            above = (peak - base["peak"]) / size
            _row(f"{library}: imports only", base["seconds"], base["peak"], size, None)
            name = "repvgg.load_checkpoint" if library == "repvgg" else "torch.load, load_state_dict"
            _row(name, statistics.median(row["seconds"] for row in loads), peak, size, above)
            if library == "repvgg":
                worst = above
    print(f"\nrepvgg.load_checkpoint peaks at {worst:.2f} times the file above its imports; the limit is {LIMIT}.")
    return 0 if worst <= LIMIT else 1


def _row(name: str, seconds: float, peak: float, size: int, above: float | None) -> None:
    more = f"{above:13.2f}x" if above is not None else ""
    print(f"{name:42} {seconds:16.2f} {peak / 1e6:8.0f} {peak / size:6.2f}x {more}")


def _run(path: Path, what: str) -> dict[str, float]:
    code = _CODE.format(here=str(Path(__file__).parent))
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    finished = subprocess.run(
        [sys.executable, "-c", code, str(path), what], env=environment, capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise SystemExit(f"'{what}' failed:\n{finished.stderr[-2000:]}")
    result: dict[str, float] = json.loads(finished.stdout.splitlines()[-1])
    return result


def write_checkpoint(variant: str, path: Path) -> None:
    """A training-form file in the official names with random weights."""
    import numpy as np

    from repvgg import get_variant
    from repvgg.checkpoints.canonical import canonical_shapes, counter_after
    from repvgg.checkpoints.torch_format.writer import write_torch

    generator = np.random.default_rng(0)
    tensors: dict[str, Any] = {}
    for name, shape in canonical_shapes(get_variant(variant).architecture, "training").items():
        tensors[name] = generator.uniform(0.5, 1, shape).astype(np.float32)
        counter = counter_after(name)
        if counter:
            tensors[counter] = np.zeros((), np.int64)
    write_torch(tensors, path)


def measure(path: str, what: str) -> float:
    """Seconds of one row; imports are not counted."""
    import time

    library, action = what.split()
    if library == "write":
        write_checkpoint(action, Path(path))
        return 0.0
    if library == "repvgg":
        import keras  # noqa: F401

        from repvgg.checkpoints.loading import load_checkpoint

        start = time.perf_counter()
        if action == "load":
            load_checkpoint(path)
        return time.perf_counter() - start
    import torch

    start = time.perf_counter()
    if action == "load":
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = _torch_module(state)
        model.load_state_dict(state)
    return time.perf_counter() - start


def _torch_module(state: dict[str, Any]) -> Any:
    """An equivalent torch module: every module that the names speak of, in the shapes that the tensors have."""
    from torch import nn

    root = nn.Module()
    for name, weight in state.items():
        path, _, leaf = name.rpartition(".")
        if leaf != "weight":
            continue
        if weight.ndim == 4:
            module: Any = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=f"{path}.bias" in state)
        elif weight.ndim == 2:
            module = nn.Linear(weight.shape[1], weight.shape[0])
        else:
            module = nn.BatchNorm2d(weight.shape[0])
        parent = root
        *parents, last = path.split(".")
        for part in parents:
            if part not in dict(parent.named_children()):
                parent.add_module(part, nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, module)
    return root


if __name__ == "__main__":
    sys.exit(main())
