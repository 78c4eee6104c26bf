"""From a plan to an engine that has proved itself: choose, build, compile, compare."""

import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from repvgg.base.errors import InputError, VerificationError
from repvgg.engine import reference
from repvgg.engine.choose import LARGEST_TILE, choose
from repvgg.engine.engine import Engine
from repvgg.engine.isa import host_isa
from repvgg.engine.plan import LARGEST, Plan
from repvgg.engine.program import Program, build
from repvgg.engine.tune import SECONDS, Tuned, measure, recall

TOLERANCE = 1e-5
"""Relative error of outputs that an engine may show on probe images. Kernels of other runtimes are off by 3e-7 to 1e-6
from float64; large tiles by up to 2e-6 in logits (docs/engine.md)."""

MOST_THREADS = 256


def compile_plan(
    plan: Plan,
    *,
    batch: int = 1,
    image_size: int | Sequence[int] = 224,
    threads: int | None = None,
    max_isa: str | None = None,
    memory_limit: int | None = None,
    check: bool = True,
    tune: bool = False,
    seconds: float = SECONDS,
    tuned: Sequence[Tuned] = (),
) -> Engine:
    """Compiles a network for the machine it runs on.

    Args:
        plan: the network.
        batch: images in every call.
        image_size: height and width of images, or one number for both.
        threads: how many it runs on; as many as this process has cores if None.
        max_isa: use no more than this instruction set ('avx2', 'avx512').
        memory_limit: bytes that packed weights and workspace may take; three quarters of the machine's if None.
        check: compare its outputs on random images with the plain form's before it is handed over. Where a layer's
            weights make large tiles inexact, smaller ones are taken.
        tune: measure which way of computing each layer is fastest here, instead of reckoning it.
        seconds: for `tune`: about how long.
        tuned: what was measured before; what fits processor, batch, image size and threads is used.

    Returns:
        An engine that maps images (batch, height, width, channels) to outputs.

    Raises:
        InputError: if an argument is out of range, memory does not do, or this machine has no fused multiply-add.
        MissingDependencyError: if llvmlite is not installed.
        VerificationError: if its outputs are not those of the plain form.
    """
    isa = host_isa(max_isa)
    batch = _number("batch", batch, LARGEST)
    height, width = _sides(image_size)
    threads = _number("threads", len_of_affinity() if threads is None else threads, MOST_THREADS)
    limit = int(0.75 * _physical_memory()) if memory_limit is None else memory_limit
    expected: Future[dict[str, np.ndarray]] | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="repvgg-probe") as pool:
        for tile in range(LARGEST_TILE, 0, -1):
            case: dict[str, Any] = {"batch": batch, "image_size": (height, width), "threads": threads}
            case["largest_tile"] = tile
            if tune:
                schedule = measure(plan, isa, seconds=seconds, **case)
            else:
                schedule = recall(plan, isa, tuned, **case) or choose(plan, isa, **case)
            program = build(plan, schedule)
            _check_memory(plan, program, limit)
            if check and expected is None:
                # The plain form is computed while LLVM compiles.
                images = _probe_images(plan, batch, (height, width))
                expected = pool.submit(reference.compute, plan, images)
            engine = Engine(plan, program)
            if expected is None:
                return engine
            try:
                engine.error = _error(engine, images, expected.result())
            except BaseException:
                engine.close()
                raise
            if engine.error <= TOLERANCE:
                return engine
            engine.close()
    raise VerificationError(
        f"The compiled form of '{plan.name}' does not give the answers of its plain form: the relative error is "
        f"{engine.error:.1e}, and {TOLERANCE:.0e} is allowed. Please report this network."
    )


def _probe_images(plan: Plan, batch: int, image_size: tuple[int, int]) -> np.ndarray:
    # Two images in turn fill any batch, and cost the plain form no more than two.
    shape = (min(batch, 2), *image_size, plan.channels)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _error(engine: Engine, images: np.ndarray, expected: dict[str, np.ndarray]) -> float:
    """The relative error of an engine's outputs against the plain form's, on random images."""
    places = np.arange(engine.batch) % len(images)
    got = engine.outputs(images[places])
    return reference.relative_error(got, {name: values[places] for name, values in expected.items()})


def len_of_affinity() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 1 << 34


def _number(what: str, value: object, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InputError(f"'{what}' must be a whole number from 1 to {most}. Received: {value!r}.")
    return value


def _sides(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2:
        raise InputError(f"'image_size' is a height and a width, or one number for both. Received: {image_size!r}.")
    return _number("image_size", sides[0], LARGEST), _number("image_size", sides[1], LARGEST)


def _check_memory(plan: Plan, program: Program, limit: int) -> None:
    needed = program.constant_bytes + program.workspace_bytes
    if needed > limit:
        raise InputError(
            f"'{plan.name}' for {program.schedule.batch} images of {program.schedule.image_size} would take "
            f"{needed / 2**20:.0f} MiB, and {limit / 2**20:.0f} MiB are allowed. Use a smaller batch or smaller "
            "images, or raise memory_limit."
        )
