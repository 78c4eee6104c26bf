"""Several processes as one training, on JAX: rendezvous, agreement, stopping at one step, noticing losses, shutdown."""

import atexit
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from repvgg.base.errors import InputError, LostProcessError
from repvgg.base.stopping import undone_if_stopped
from repvgg.training.cluster import Cluster

RENDEZVOUS_SECONDS = 300
"""How long the first ones wait for the last one: schedulers start them one after the other."""

HEARTBEAT_SECONDS = 30
"""A process that has been silent for so long has gone. JAX's own default is 100."""

SHUTDOWN_SECONDS = 600
"""How long a process waits at the end for the others, of which one still writes its last model."""

_GONE = re.compile(r"gloo|nccl|coordination service|heartbeat|connection (reset|closed)|socket closed", re.IGNORECASE)
"""What JAX's errors say when an exchange between processes fails; they have no type of their own."""

_LAST_WORDS = (
    "This process ended without a word of its own: mostly because another process of the training has gone (JAX's "
    "reason is above), or because it was killed, as for want of memory. Start all of them again with --resume; they "
    "go on from the last step saved."
)


@contextmanager
def joined(cluster: Cluster, *, seconds: int = RENDEZVOUS_SECONDS) -> Iterator[None]:
    """Inside, this is one of the processes of a training; called before anything else touches the devices.

    It is for one training: the processes shut their connection down when that has ended.

    Args:
        seconds: how long to wait for the others.

    Raises:
        InputError: on a backend other than JAX, or if the port is taken on the host of process 0.
    """
    import keras

    if keras.backend.backend() != "jax":
        raise InputError(
            f"Several processes train together on JAX, and the Keras backend is '{keras.backend.backend()}'. "
            "Set KERAS_BACKEND=jax on every host."
        )
    with _last_words(_LAST_WORDS) as dismiss:
        _rendezvous(cluster, seconds, dismiss)
        yield


def _rendezvous(cluster: Cluster, seconds: int, dismiss: Callable[[], None]) -> None:
    import jax
    from jax.experimental import multihost_utils

    if os.environ.get("JAX_PLATFORMS", "") in ("", "cpu"):
        # Without it processes on CPUs cannot exchange anything; accelerators do not look at it.
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    if cluster.process_id == 0:
        require_free_port(cluster.coordinator)
    atexit.register(_leave)
    # At its own time limit JAX aborts the process, with a stack of C++ functions for a message.
    timer = threading.Timer(seconds, lambda: _give_up(cluster, seconds, dismiss))
    timer.daemon = True
    timer.start()
    try:
        # What `keras.distribution.initialize` calls, which has no time limits to set. "deactivate": under Slurm, JAX
        # would otherwise take one GPU of each host.
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.num_processes,
            cluster.process_id,
            cluster_detection_method="deactivate",
            initialization_timeout=seconds + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
        # Processes on CPUs have 30 seconds to open their connections at the first exchange. Here they are together;
        # later one may still look through its images when another one has done so.
        with noticing_losses():
            multihost_utils.sync_global_devices("rendezvous")
    finally:
        timer.cancel()


def require_free_port(coordinator: str) -> None:
    """JAX crashes at a port that is taken, or shares it with another training.

    Raises:
        InputError: if somebody listens at it on this host.
    """
    port = int(coordinator.rpartition(":")[2])
    wide = socket.has_dualstack_ipv6()
    try:
        socket.create_server(
            ("", port), family=socket.AF_INET6 if wide else socket.AF_INET, dualstack_ipv6=wide
        ).close()
    except OSError as error:
        # The error's own text repeats the address that was tried.
        reason = os.strerror(error.errno or 0)
        raise InputError(
            f"Process 0 cannot listen at port {port} of this host: {reason}. Choose another --coordinator."
        ) from error


def _give_up(cluster: Cluster, seconds: int, dismiss: Callable[[], None]) -> NoReturn:
    """Ends the process from beside the thread that waits inside of JAX."""
    host, _, port = cluster.coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
        state = "Process 0 is there, and others are missing."
    except OSError as error:
        state = f"Nothing answers there ({error}): is process 0 running, and is its port open to this host?"
    sys.stderr.write(
        f"Error: The {cluster.num_processes} processes did not all meet at '{cluster.coordinator}' within {seconds} "
        f"seconds. {state}\n"
    )
    dismiss()
    end(2)


def _leave() -> None:
    """At the end of the interpreter: leaves at once if the training did not come to its end.

    JAX's own end waits for the other processes, and those wait for this one in the middle of a step.
    """
    if connected():
        end(1)


def connected() -> bool:
    """Whether other processes are waiting for this one."""
    jax = sys.modules.get("jax")
    return jax is not None and bool(jax.distributed.is_initialized())


def end(status: int) -> NoReturn:
    """Ends this process, and so the others', without waiting for them."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def shutdown() -> None:
    """Waits until every process has come here; from now on each is on its own. For one alone it does nothing."""
    import jax

    if not jax.distributed.is_initialized():
        return
    jax.distributed.shutdown()
    if threading.current_thread() is threading.main_thread():
        # JAX goes on catching SIGTERM, and nobody asks it any more.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def asked_to_stop(step: int) -> bool:
    """Whether one of the processes got a SIGTERM and this is the step at which all of them stop.

    Called after each step, on every process; all get the same answer for the same step.
    """
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(step))


def require_agreement(values: Mapping[str, Any]) -> None:
    """Compares `values` between the processes; names are for the message.

    Raises:
        InputError: on all of them, if they differ.
        LostProcessError: if one has gone.
    """
    if not connected():
        return
    from jax.experimental import multihost_utils

    sums = np.array([zlib.crc32(repr(value).encode()) for value in values.values()], np.uint32)
    with noticing_losses():
        everyone = np.asarray(multihost_utils.process_allgather(sums)).reshape(-1, len(sums))
    for (name, value), column in zip(values.items(), everyone.T, strict=True):
        different = np.flatnonzero(column != column[0])
        if len(different):
            numbers = ", ".join(str(number) for number in different)
            told = repr(value)
            raise InputError(
                f"The processes differ in {name}: process {numbers} and process 0 do not have the same. Here it is "
                f"{told[:200]}{' ...' if len(told) > 200 else ''}. All need the same arguments, and the images and the "
                "run's folder on a file system they share."
            )


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Inside, an exchange that fails because another process has gone is told as that.

    Raises:
        LostProcessError: instead of JAX's error.
    """
    import jax

    try:
        yield
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, InputError) or not connected() or not _GONE.search(str(error)):
            raise
        raise LostProcessError(str(error).splitlines()[0]) from error


@contextmanager
def _last_words(message: str) -> Iterator[Callable[[], None]]:
    """Inside, `message` comes on standard error if this process is killed, or aborted from within a library.

    JAX aborts a process that has lost another one, and whoever is killed cannot speak. A child that waits for the end
    of a pipe can; a word through that pipe sends it away, and that is what the function given does.
    """
    script = "import sys; sys.stdin.buffer.read() or print(sys.argv[1], file=sys.stderr)"
    # A session of its own: what is sent to the group of a terminal shall not reach it.
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", script, message], stdin=subprocess.PIPE, start_new_session=True
    )

    def dismiss() -> None:
        child.communicate(b"fine")

    try:
        with undone_if_stopped(dismiss):
            yield dismiss
    finally:
        dismiss()
