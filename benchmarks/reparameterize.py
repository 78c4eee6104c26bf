"""Time and memory of `repvgg.reparameterize`, its own verification included.

    python benchmarks/reparameterize.py RepVGG-A0 RepVGG-B3

Each network has a process of its own. Memory is the peak resident size during the call, above what the process held
right before it (the training form, and everything imported), in units of the training form's own weights. The time is
that of a first call; nothing is warmed up.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from rich.console import Console
from rich.table import Table


def measure(name: str) -> dict[str, float]:
    """Runs in its own process."""
    import numpy as np

    import repvgg

    model = repvgg.create_model(name)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("moving_variance"):
            variable.assign(generator.uniform(0.3, 3, variable.shape))
    weights = sum(variable.value.numpy().nbytes for variable in model.weights)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    deployed = repvgg.reparameterize(model)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if deployed.count_params() != repvgg.get_variant(name).cost().deploy_parameters:
        raise SystemExit(f"{name}: the converted model has {deployed.count_params()} parameters.")
    return {"seconds": seconds, "weights": weights, "peak_above": peak - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", default=["RepVGG-A0", "RepVGG-B3"])
    parser.add_argument("--only", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only)))
        return
    table = Table("network", title="repvgg.reparameterize, verification included")
    for heading in ("seconds", "training weights", "peak above", "times the weights"):
        table.add_column(heading, justify="right")
    for name in arguments.variants:
        command = [sys.executable, __file__, "--only", name]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        found = json.loads(output.splitlines()[-1])
        table.add_row(
            name,
            f"{found['seconds']:.2f}",
            f"{found['weights'] / 1e6:.0f} MB",
            f"{found['peak_above'] / 1e6:.0f} MB",
            f"{found['peak_above'] / found['weights']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
