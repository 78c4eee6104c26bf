"""Threads that behave: many callers, many engines, few cores, forks, and ends that come early."""

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from plain_networks import images, network, schedule_of

from repvgg.engine import ENTRY, build, compile_plan
from repvgg.engine.machine import Code
from repvgg.engine.pack import pack, zeros
from repvgg.engine.reference import compute

SCRIPT = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
from plain_networks import images, network
from repvgg.engine import compile_plan
engine = compile_plan(network(), image_size=64, threads=3, check=False)
batch = images(1, 64, 64, 3)
expected = engine(batch)
"""


def run(script: str) -> subprocess.CompletedProcess[str]:
    """A Python of its own, which must end by itself."""
    text = SCRIPT.format(tests=str(Path(__file__).parent)) + textwrap.dedent(script)
    return subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=300, check=False)


def test_one_engine_called_from_many_threads_with_more_threads_than_cores() -> None:
    plan = network()
    batches = [images(1, 32, 32, 3) for _ in range(4)]
    with compile_plan(plan, image_size=32, threads=5) as engine:
        expected = [engine(batch) for batch in batches]
        wrong: list[int] = []

        def call(index: int) -> None:
            wrong.extend(index for _ in range(25) if not np.array_equal(engine(batches[index]), expected[index]))

        callers = [threading.Thread(target=call, args=(index,)) for index in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(timeout=60)
        assert not any(caller.is_alive() for caller in callers)
        assert wrong == []


def test_several_engines_at_once_and_threads_that_end_with_them() -> None:
    before = threading.active_count()
    batch = images(1, 32, 32, 3)
    engines = [compile_plan(network(), image_size=32, threads=2, check=False) for _ in range(3)]
    first = [engine(batch) for engine in engines]
    assert threading.active_count() == before + 3
    for _ in range(20):
        for engine, expected in zip(engines, first, strict=True):
            np.testing.assert_array_equal(engine(batch), expected)
    engines.pop().close()
    del engine, engines
    assert threading.active_count() == before


def test_threads_of_others_compute_together() -> None:
    # As a C program would: threads of its own, all of which call the same function.
    plan = network()
    schedule = schedule_of(plan, (32, 32), threads=3)
    program = build(plan, schedule)
    code = Code(program.ir, schedule.isa)
    kinds = (*([ctypes.c_void_p] * 4), ctypes.c_int64, ctypes.c_int64)
    function = ctypes.CFUNCTYPE(None, *kinds)(code.address(ENTRY))
    constants, workspace = pack(program.arrays), zeros(program.workspace_bytes)
    for threads in (1, 3, 2):
        batch, outputs = images(1, 32, 32, 3), np.empty(program.output_bytes // 4, np.float32)
        places = [array.ctypes.data for array in (constants, workspace, batch, outputs)]
        pool = [threading.Thread(target=function, args=(*places, index, threads)) for index in range(threads)]
        for thread in pool:
            thread.start()
        for thread in pool:
            thread.join(timeout=60)
        logits = program.outputs["logits"]
        expected = compute(plan, batch.astype(np.float64))["logits"]
        np.testing.assert_allclose(outputs[: logits.count].reshape(logits.shape), expected, rtol=0, atol=1e-4)
    code.close()


def test_ten_thousand_calls_leak_nothing() -> None:
    process = psutil.Process()
    batch = images(1, 16, 16, 3)
    with compile_plan(network(widths=(8, 8), strides=(2, 1)), image_size=16, threads=2, check=False) as engine:
        for _ in range(500):
            engine(batch)
        before = process.memory_info().rss
        for _ in range(10_000):
            engine(batch)
        assert process.memory_info().rss - before < 4 << 20


def test_engines_that_are_made_and_dropped_leak_nothing() -> None:
    process = psutil.Process()
    plan = network(widths=(8, 8), strides=(2, 1))

    def once() -> None:
        with compile_plan(plan, image_size=16, threads=2, check=False) as engine:
            engine(images(1, 16, 16, 3))

    for _ in range(5):
        once()
    before = process.memory_info().rss
    for _ in range(20):
        once()
    assert process.memory_info().rss - before < 16 << 20


def test_idle_threads_use_no_processor_time() -> None:
    with compile_plan(network(), image_size=32, threads=3, check=False) as engine:
        engine(images(1, 32, 32, 3))
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - before < 0.05


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    done = run(
        """
        import warnings
        warnings.simplefilter("ignore")  # Python warns of forks in processes with threads, which is the point here
        child = os.fork()
        same = bool(np.array_equal(engine(batch), expected))
        if child == 0:
            os._exit(0 if same else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert same
        print("both")
        """
    )
    assert done.stdout == "both\n", done.stderr


def test_the_interpreter_ends_while_another_thread_is_calling() -> None:
    done = run(
        """
        def forever():
            while True:
                engine(batch)
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.2)
        print("leaving")
        """
    )
    assert (done.returncode, done.stdout) == (0, "leaving\n"), done.stderr


def test_an_interrupt_leaves_the_engine_usable() -> None:
    done = run(
        """
        # Where the tests run in a shell's background, SIGINT is ignored from the beginning.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Timer(0.3, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            while True:
                engine(batch)
        except KeyboardInterrupt:
            print("interrupted", np.array_equal(engine(batch), expected))
        """
    )
    assert done.stdout == "interrupted True\n", done.stderr
