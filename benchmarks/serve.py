"""How many requests a second `repvgg serve` answers, and how long they take, with 1, 8 and 64 clients at once.

    python benchmarks/serve.py model.onnx
    python benchmarks/serve.py model.onnx --clients 1 8 --batches 8 --seconds 10

Server and clients share this machine's cores, over its loopback interface. Each client sends a photo-like JPEG of
640 x 480 pixels again as soon as it is answered. `--batches 8 1` measures with and without pictures of several
requests going through the network together.
"""

import argparse
import http.client
import io
import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from repvgg.benchmarking.machine import this_machine

RESULTS = Path(__file__).parent / "results" / "serve.json"
SIZE = (640, 480)


def photo() -> bytes:
    """Smooth colours with some noise, as large as a photo of that size usually is."""
    generator = np.random.default_rng(0)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        SIZE, Image.Resampling.BICUBIC
    )
    noisy = np.asarray(coarse, np.int16) + generator.integers(-9, 10, (SIZE[1], SIZE[0], 3))
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def form(content: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and body of a form with one file."""
    head = b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="photo.jpg"\r\n\r\n'
    return {"Content-Type": "multipart/form-data; boundary=frontier"}, head + content + b"\r\n--frontier--\r\n"


@contextmanager
def server(model: Path, batch: int) -> Iterator[int]:
    """A server that answers, and its port."""
    command = [sys.executable, "-m", "repvgg", "serve", str(model), "--port", "0", "--batch", str(batch)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r":(\d+) \(", line)
            if not found:
                raise SystemExit(f"The server did not start: {line}")
            yield int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)


def figures(port: int) -> tuple[float, float]:
    """How many batches the network has run so far, and how many pictures were in them."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    batches, pictures = (re.search(rf"repvgg_batch_pictures_{name}{{.*}} (\S+)", text) for name in ("count", "sum"))
    return (float(batches[1]) if batches else 0, float(pictures[1]) if pictures else 0)


def measure(port: int, clients: int, seconds: float) -> dict[str, Any]:
    """All clients at once for `seconds`; whoever has begun by then is waited for."""
    headers, body = form(photo())
    times: list[float] = []
    failures: list[int] = []
    ready = threading.Barrier(clients + 1)
    end = 0.0

    def client() -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            ready.wait()
            while (begin := time.perf_counter()) < end:
                connection.request("POST", "/predict", body, headers)
                response = connection.getresponse()
                response.read()
                times.append(time.perf_counter() - begin)
                if response.status != 200:
                    failures.append(response.status)

    before = figures(port)
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    begin = time.perf_counter()
    end = begin + seconds
    ready.wait()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    batches, pictures = (after - earlier for after, earlier in zip(figures(port), before, strict=True))
    cuts = statistics.quantiles(times, n=100)
    return {
        "clients": clients,
        "requests": len(times),
        "failures": len(failures),
        "requests_per_second": len(times) / took,
        "median_ms": cuts[49] * 1e3,
        "percentile_99_ms": cuts[98] * 1e3,
        "pictures_in_a_batch": pictures / max(batches, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 1], help="--batch of the server")
    parser.add_argument("--seconds", type=float, default=6, help="for each row")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "model": arguments.model.name,
        "picture": f"JPEG, {SIZE[0]} x {SIZE[1]} pixels, {len(photo())} bytes",
        "machine": asdict(this_machine()),
        "rows": [],
    }
    table = Table("batch, at most", title=f"{arguments.model.name} on {this_machine()}")
    for heading in ("clients", "requests/s", "median, ms", "99th percentile, ms", "pictures in a batch"):
        table.add_column(heading, justify="right")
    for batch in arguments.batches:
        with server(arguments.model, batch) as port:
            measure(port, 1, 1)
            for clients in arguments.clients:
                row = {"batch": batch, **measure(port, clients, arguments.seconds)}
                found["rows"].append(row)
                table.add_row(
                    str(batch),
                    str(clients),
                    f"{row['requests_per_second']:.1f}",
                    f"{row['median_ms']:.1f}",
                    f"{row['percentile_99_ms']:.1f}",
                    f"{row['pictures_in_a_batch']:.1f}",
                )
    Console().print(table)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
