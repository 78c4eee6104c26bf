"""Several processes and several devices train as one does.

The processes run on JAX, whichever backend the other tests are run with.
"""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from small_run import BATCH, EPOCHS, make_images

from repvgg.base.errors import InputError, OutputExistsError
from repvgg.base.run_folder import DATA, RunFolder
from repvgg.training.cluster import Cluster
from repvgg.training.processes import joined, require_free_port
from repvgg.training.state import saved_steps

STEPS = EPOCHS * (36 // BATCH)
HERE = Path(__file__).parent
ENOUGH = 600
"""Seconds that no test needs; a machine may be busy."""

Process = subprocess.Popen[str]
Start = Callable[..., list[Process]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, which all runs here share."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture
def start(cache: Path) -> Iterator[Start]:
    """Starts a script in several processes that know each other; none of them outlives the test."""
    begun: list[Process] = []

    def start(script: str, *arguments: str, processes: int = 2, flags: str = "") -> list[Process]:
        address = f"127.0.0.1:{free_port()}"
        environment = {
            **os.environ,
            "KERAS_BACKEND": "jax",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            # These programs run for a second and would be compiled for twenty.
            "XLA_FLAGS": f"--xla_backend_optimization_level=0 {flags}",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
        new = [
            subprocess.Popen(
                [
                    sys.executable,
                    str(HERE / script),
                    *arguments,
                    *([f"--cluster={address},{processes},{number}"] if processes > 1 else []),
                ],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        begun.extend(new)
        return new

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ends(processes: list[Process]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of each."""
    told = [process.communicate(timeout=ENOUGH) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, told, strict=True)]


def wait_for(process: Process, line: str) -> None:
    assert process.stdout is not None
    for received in process.stdout:
        if received.strip() == line:
            return
    raise AssertionError(f"never said '{line}': {process.communicate()[1][-3000:]}")


def finish(processes: list[Process]) -> list[str]:
    results = ends(processes)
    assert [status for status, *_ in results] == [0] * len(processes), results
    return [told for _, told, _ in results]


@pytest.fixture(scope="module")
def alone(data: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process on one device, which every other way has to equal."""
    output = tmp_path_factory.mktemp("runs") / "alone"
    starting = start.__wrapped__(cache)  # type: ignore[attr-defined]
    finish(next(starting)("small_run.py", str(data), str(output), processes=1))
    return output


def assert_same_run(reference: Path, candidate: Path) -> None:
    """The loss curve, the validation and the final state.

    The sums over a batch are the same, in another order: float32 differs by 6e-8 relative each time, which 16 steps of
    a network with batch normalization amplify. Measured: 2e-6; a mistake (statistics of half a batch, a gradient
    counted twice) is off by more than 1e-2 after one step.
    """
    first, second = (
        list(csv.DictReader((folder / "history.csv").read_text().splitlines())) for folder in (reference, candidate)
    )
    assert [row["epoch"] for row in first] == [row["epoch"] for row in second]
    for ours, theirs in zip(first, second, strict=True):
        for name in ("loss", "cross_entropy", "accuracy", "val_accuracy", "val_cross_entropy", "learning_rate"):
            assert float(ours[name]) == pytest.approx(float(theirs[name]), rel=1e-4, abs=1e-6), (name, ours, theirs)
    before, after = (
        load_file(max((folder / "checkpoints").glob("*.safetensors"))) for folder in (reference, candidate)
    )
    names = [name for name in before if name.startswith("model/")]
    assert any(name.endswith("moving_variance") for name in names)
    for name in names:
        error = np.abs(before[name] - after[name]).max() / np.abs(before[name]).max()
        assert error < 1e-4, (name, error)


@pytest.mark.full
def test_two_processes_that_are_stopped_and_resumed_equal_one(
    data: Path, alone: Path, tmp_path: Path, start: Start
) -> None:
    """A SIGTERM to one: both stop at the same step, which is saved."""
    output = tmp_path / "run"
    first, second = start("small_run.py", str(data), str(output), "save_steps=100")
    wait_for(second, "step 5")
    second.send_signal(signal.SIGTERM)
    results = ends([first, second])
    stops = [re.search(r"Stopped at step (\d+); its state is saved", errors) for _, _, errors in results]
    assert all(stops), results
    stopped = {int(stop[1]) for stop in stops if stop is not None}
    assert len(stopped) == 1
    assert saved_steps(output / "checkpoints")[-1] == stopped.pop()
    assert all(status != 0 for status, *_ in results)

    told = finish(start("small_run.py", str(data), str(output), "--resume"))
    assert all(text.endswith(f"step {STEPS}\n") for text in told)
    assert_same_run(alone, output)
    assert {path.name for path in output.iterdir()} == {path.name for path in alone.iterdir()}


@pytest.mark.full
def test_one_of_two_processes_is_killed(data: Path, alone: Path, tmp_path: Path, start: Start) -> None:
    """The other ends, and says why; both together go on from the last checkpoint."""
    output = tmp_path / "run"
    first, second = start("small_run.py", str(data), str(output))
    wait_for(second, "step 5")
    second.kill()
    ((status, _, errors),) = ends([first])
    assert status not in (0, None)
    assert re.search(r"another process of (this|the) training has gone.*--resume", errors, re.IGNORECASE | re.DOTALL)
    assert saved_steps(output / "checkpoints")[-1] >= 4
    finish(start("small_run.py", str(data), str(output), "--resume"))
    assert_same_run(alone, output)


@pytest.mark.full
def test_two_devices_of_one_process_equal_one(data: Path, alone: Path, tmp_path: Path, start: Start) -> None:
    output = tmp_path / "run"
    finish(start("small_run.py", str(data), str(output), processes=1, flags="--xla_force_host_platform_device_count=2"))
    assert_same_run(alone, output)


def replicas(*arguments: str) -> dict[str, Any]:
    told = subprocess.run(
        [sys.executable, str(HERE / "replicas.py"), *arguments],
        env={**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=ENOUGH,
        check=False,
    )
    assert told.returncode == 0, told.stderr[-3000:]
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


@pytest.mark.full
def test_two_replicas_in_tensorflow(data: Path, tmp_path: Path) -> None:
    """Each replica normalizes with its own half of the batch, so the halves are the same here."""
    found = replicas(str(data), str(tmp_path / "run"))
    first, second = found["loss"]
    assert first == pytest.approx(second, rel=1e-5)
    errors = found["errors"]
    assert any("/kernel" in name for name in errors)
    # Bessel's correction of a running variance knows the half only: at 1x1 pixels 4/3 for 4 images, 8/7 for 8.
    trained = {name: error for name, error in errors.items() if "moving_variance" not in name}
    assert max(trained.values()) < 1e-4, trained
    assert max(errors.values()) < 4 / 3 - 8 / 7
    accumulate, clip = found["refusals"]
    assert accumulate.startswith("`accumulate` does not go together with several devices in TensorFlow.")
    assert clip.startswith("`clip_norm` does not")
    assert found["run"] == {"same_class": 12, "epochs": 1}
    assert replicas("scaled")["scaled"] < 1e-4


def test_processes_that_differ_are_told_so_and_an_error_in_one_ends_the_other(start: Start) -> None:
    """The second one waits for the first with nothing to exchange: it is JAX that ends it then, not an exception."""
    first, second = start("rendezvous.py", "differ")
    for process in (first, second):
        wait_for(process, "agreed")
        wait_for(process, "The processes differ in the number: process 1 and process 0 do not have the same.")
    (status, _, errors), (status_of_second, _, errors_of_second) = ends([first, second])
    assert status == 1
    assert "OSError: no images here" in errors
    assert "another process" not in errors
    assert status_of_second not in (0, None)
    assert "another process of the training has gone" in errors_of_second
    assert "--resume" in errors_of_second


@pytest.mark.full
def test_processes_that_never_come(start: Start) -> None:
    address = f"127.0.0.1:{free_port()}"
    lonely = [
        *start("rendezvous.py", "wait", f"--cluster={address},2,0", processes=1),
        *start("rendezvous.py", "wait", f"--cluster=127.0.0.1:{free_port()},2,1", processes=1),
    ]
    coordinator, other = ends(lonely)
    assert coordinator[0] == other[0] == 2
    assert coordinator[2].strip() == (
        f"Error: The 2 processes did not all meet at '{address}' within 3 seconds. Process 0 is there, and others are "
        "missing."
    )
    assert "within 3 seconds. Nothing answers there" in other[2]
    assert "is process 0 running" in other[2]


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"cannot listen at port {port} of this host: Address already in use\. "):
            require_free_port(f"127.0.0.1:{port}")
    require_free_port(f"127.0.0.1:{port}")


def test_resume_begins_where_a_start_ended_before_its_first_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_json(DATA, {"kind": "folders"})
    with pytest.raises(OutputExistsError):
        folder.require_free(resume=False, force=False)
    folder.require_free(resume=True, force=False)
    folder.begin({}, {})
    assert folder.read_json(DATA) == {}
    assert folder.started
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputExistsError):
        folder.require_free(resume=True, force=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("host", 2, 0), "HOST:PORT"),
        ((":1234", 2, 0), "HOST:PORT"),
        (("host:99999", 2, 0), "HOST:PORT"),
        (("host:1234", 2, 2), "--process-id counts from 0 to"),
        (("host:1234", 2, -1), "--process-id counts from 0 to"),
    ],
)
def test_clusters_that_are_none(values: tuple[str, int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cluster(*values)


def test_other_backends_are_refused() -> None:
    processes = joined(Cluster("127.0.0.1:1", 2, 0))
    with pytest.raises(InputError, match=r"on JAX, and the Keras backend is 'tensorflow'. Set KERAS_BACKEND=jax"):
        processes.__enter__()
