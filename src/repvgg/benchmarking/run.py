"""`benchmark`: everything is prepared and checked, then all take turns."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.progress import working
from repvgg.benchmarking.figures import figures_of
from repvgg.benchmarking.machine import LoadMeter, this_machine
from repvgg.benchmarking.networks import Network, NetworkFile
from repvgg.benchmarking.report import BenchmarkReport, NetworkFacts, Row
from repvgg.benchmarking.request import SIZE, Request, checked_request
from repvgg.benchmarking.runtimes import Runtime, load, set_keras_threads
from repvgg.benchmarking.turns import Call, take_turns, warm_up
from repvgg.models.cost import count_cost
from repvgg.models.variants import VARIANTS
from repvgg.runners import load_runner
from repvgg.runners.runner import Runner
from repvgg.verification import difference

RTOL = 1e-3
"""Relative difference of a runtime's answers from Keras's. Ten times what other kernels cost: a speed is only worth
something if the network is the right one."""


_FILE_RUNTIMES = {
    ".keras": "Keras",
    ".onnx": "ONNX Runtime",
    ".xml": "OpenVINO",
    ".tflite": "LiteRT",
    ".repvgg": "Native engine",
    "": "TensorFlow",
}


@dataclass(frozen=True)
class _Contestant:
    """Ready to run."""

    network: NetworkFacts
    runtime: str
    call: Call


def benchmark(
    networks: Sequence[str | Path] = (),
    *,
    runtimes: Sequence[str] = (),
    int8: bool = False,
    batch: int = 1,
    size: int | None = None,
    threads: int | None = None,
    rounds: int = 10,
    out: Console | None = None,
) -> BenchmarkReport:
    """How fast networks run on this machine, one beside the other.

    All are prepared first, and their answers compared; then they take turns, so that what else the machine does hits
    all of them, and medians are reported. Named networks have random weights, which make no difference to speed;
    in INT8 the ranges of noise, which make none either.

    Args:
        networks: names of `repvgg.list_variants()`, of baselines ("ResNet-50", "ResNet-101", "VGG-16",
            "EfficientNet-B0", "MobileNetV3-Large", "MobileNetV3-Small"), or files that `load_runner` takes. A selection
            of the paper's table if empty.
        runtimes: what named networks run in: "keras", "onnx", "openvino", "litert", and each but the first with
            "-int8" behind it; the first four if empty. A file runs in its own.
        int8: in INT8 as well.
        batch: images in a call.
        size: pixels a side; if None, what published accuracies were measured on, and of files what they were made for.
        threads: to calculate with; as many as there are cores if None.
        rounds: how often everybody has a turn.
        out: where to show how far it is; nowhere if None.

    Raises:
        InputError: for names, files or numbers that do not fit.
        MissingDependencyError: if a runtime is not installed.

    Example:
        >>> report = benchmark(["RepVGG-A0", "ResNet-50"], runtimes=["onnx"], batch=16)
        >>> [(row.network.name, figures.images_per_second) for row, figures in report.measured()]
        [('RepVGG-A0', 126.3), ('ResNet-50', 40.0)]
    """
    request = checked_request(networks, runtimes, int8=int8, batch=batch, size=size, threads=threads, rounds=rounds)
    return run(request, out or Console(quiet=True))


def run(request: Request, out: Console) -> BenchmarkReport:
    """Carries a checked request out."""
    if request.runs_keras and request.threads is not None:
        set_keras_threads(request.threads)
    contestants: list[_Contestant] = []
    missing: dict[tuple[str, str], Row] = {}
    steps = sum(1 if isinstance(entry, NetworkFile) else len(request.runtimes) for entry in request.entries)
    order: list[tuple[str, str]] = []
    with working(out, "preparing", steps) as work:
        for entry in request.entries:
            if isinstance(entry, NetworkFile):
                work.say(entry.name)
                found = [_from_file(entry, request)]
                work.advance()
            else:
                found = _prepared(entry, request, work.say, work.advance)
            # A model and its graphs refer to each other, and the next one needs the room.
            gc.collect()
            for one in found:
                order.append((one.network.name, one.runtime))
                if isinstance(one, Row):
                    missing[order[-1]] = one
                else:
                    contestants.append(one)
    if not contestants:
        reasons = "; ".join(f"{row.network.name}, {row.runtime}: {row.missing}" for row in missing.values())
        raise InputError(f"There is nothing to time. {reasons}")
    with working(out, "warming up", len(contestants)) as work:
        counts = []
        for one in contestants:
            work.say(f"{one.network.name}, {one.runtime}")
            counts.append(warm_up(one.call))
            work.advance()
    meter = LoadMeter()
    with working(out, "timing", request.rounds * len(contestants), unit="turns") as work:

        def on_turn(place: int) -> None:
            work.say(f"{contestants[place].network.name}, {contestants[place].runtime}")
            work.advance()

        turns = take_turns(
            [one.call for one in contestants], counts, request.rounds, on_turn=on_turn, on_round=meter.end_round
        )
    figures = figures_of(turns, [request.batch] * len(contestants))
    timed = {
        (one.network.name, one.runtime): Row(one.network, one.runtime, its)
        for one, its in zip(contestants, figures, strict=True)
    }
    return BenchmarkReport(
        machine=this_machine(),
        batch=request.batch,
        threads=request.cores,
        rounds=request.rounds,
        backend=_backend(request),
        load=meter.load(),
        rows=tuple(timed.get(key) or missing[key] for key in order),
    )


def _prepared(
    entry: Network, request: Request, say: Callable[[str], None], advance: Callable[[int], None]
) -> list[_Contestant | Row]:
    """A named network in every runtime."""
    from repvgg.benchmarking.counting import count_model
    from repvgg.runners.keras import KerasRunner

    size = request.size or entry.image_size
    say(entry.name)
    model = entry.build(size)
    counted = count_model(model)
    facts = NetworkFacts(
        entry.name,
        entry.family,
        (size, size),
        counted.parameters,
        counted.macs,
        counted.winograd,
        # An accuracy belongs to the size of images that it was measured on.
        entry.top1 if size == entry.image_size else None,
        entry.source,
    )
    images = _images((request.batch, size, size, 3))
    expected = KerasRunner(model, compiled=False)(images[:1])
    found: list[_Contestant | Row] = []
    for runtime in request.runtimes:
        say(f"{entry.name}, {runtime.name}")
        try:
            runner = load(runtime, model, stock=entry.stock, size=size, threads=request.cores)
            _require_same(runtime, expected, runner(images[:1]))
            found.append(_Contestant(facts, runtime.name, runner.repeated(images)))
        except InputError as error:
            found.append(Row(facts, runtime.name, missing=str(error)))
        advance(1)
    return found


def _require_same(runtime: Runtime, expected: np.ndarray, received: np.ndarray) -> None:
    """Raises `InputError` if it is not the same network there."""
    if runtime.precision == "int8":
        return
    error = difference(expected, received).relative
    if not error <= RTOL:
        raise InputError(f"its answers are others there: relative error {error:.1e}")


def _from_file(entry: NetworkFile, request: Request) -> _Contestant | Row:
    """A file in its own runtime.

    Raises:
        InputError: if it cannot be run, or not with these images.
    """
    runner = load_runner(entry.path, threads=None if entry.in_keras else request.cores)
    height, width, channels = _image_shape(entry, runner, request.size)
    if runner.batch_size not in (None, request.batch):
        raise InputError(
            f"'{entry.path}' takes batches of {runner.batch_size}, and `batch` is {request.batch}. Choose that, or "
            "export it with an open batch."
        )
    images = _images((request.batch, height, width, channels))
    if runner.takes_uint8:
        images = np.clip(128 + 50 * images, 0, 255).astype(np.uint8)
    outputs = runner(images)
    facts = NetworkFacts(str(entry.path), None, (height, width), **_count_file(runner, outputs, (height, width)))
    return _Contestant(facts, runtime_of(entry.path, runner), runner.repeated(images))


def _image_shape(entry: NetworkFile, runner: Runner, size: int | None) -> tuple[int, int, int]:
    """Height, width and channels of what the file gets: what it wants, what it was made for, or what was asked for."""
    *sides, channels = runner.input_shape
    carried = runner.metadata.preprocessing
    usual = size or (carried.crop if carried is not None else SIZE)
    for side in sides:
        if side is not None and size is not None and side != size:
            raise InputError(
                f"'{entry.path}' takes images of {sides[0]} x {sides[1]} pixels, and `size` is {size}. Leave that out, "
                "or export it with open sides."
            )
    return sides[0] or usual, sides[1] or usual, channels or (carried.channels if carried is not None else 3)


def _count_file(runner: Runner, outputs: np.ndarray, size: tuple[int, int]) -> dict[str, Any]:
    """What is known of the network in a file: one of ours says which it is."""
    metadata = runner.metadata
    variant = VARIANTS.get(metadata.variant or "")
    if variant is None or metadata.form != "deploy" or outputs.ndim != 2:
        return {}
    cost = count_cost(variant.architecture, outputs.shape[1], size)
    return {
        "parameters": cost.deploy_parameters,
        "macs": cost.deploy_macs,
        "winograd": cost.winograd_multiplications,
    }


def runtime_of(path: Path, runner: Runner) -> str:
    """What runs a file, and in INT8 that too."""
    name = _FILE_RUNTIMES["" if path.is_dir() else path.suffix]
    return f"{name} INT8" if runner.metadata.precision == "int8" else name


def _images(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _backend(request: Request) -> str | None:
    if not request.needs_keras:
        return None
    import keras

    return str(keras.backend.backend())
