"""Threads that run generated code: started at the first call, asleep between calls, gone when the engine is.

A call goes from Python into generated code once; threads meet there, without Python's lock. A worker is a Python thread
that stays in generated code until it is told to stop.
"""

import atexit
import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from repvgg.engine import sync
from repvgg.engine.machine import Code

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
_CALL = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _POINTER, _POINTER, _LONG)
_WORKER = ctypes.CFUNCTYPE(None, _POINTER, _POINTER, _LONG, _LONG, _INT)
_STOP = ctypes.CFUNCTYPE(None, _POINTER)

_all: "weakref.WeakSet[Workers]" = weakref.WeakSet()


@dataclass(frozen=True)
class _Functions:
    call: Callable[..., None]
    worker: Callable[..., None]
    stop: Callable[..., None]


class Workers:
    """Code, its memory, and the threads it runs on. Calls from several threads take turns.

    Attributes:
        workspace: memory of results between layers.
    """

    def __init__(self, code: Code, constants: np.ndarray, workspace: np.ndarray, threads: int) -> None:
        self._code, self._constants, self.workspace, self._threads = code, constants, workspace, threads
        self._functions = _Functions(
            _CALL(code.address("call")), _WORKER(code.address("worker")), _STOP(code.address("stop"))
        )
        self._lock = threading.Lock()
        self._pool: list[threading.Thread] = []
        self._closed = False
        _all.add(self)

    def run(self, images: np.ndarray, outputs: np.ndarray) -> None:
        """Computes outputs from images; both dense, float32, and as large as the program says.

        Raises:
            RuntimeError: if it is closed.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("The engine is closed, and cannot be called any more.")
            if len(self._pool) < self._threads - 1:
                self._start()
            self._functions.call(
                self._constants.ctypes.data,
                self.workspace.ctypes.data,
                images.ctypes.data,
                outputs.ctypes.data,
                self._threads,
            )

    def _start(self) -> None:
        counters = self.workspace.view(np.int32)
        before = int(counters[sync.LINE * sync.JOB // 4])
        try:
            for index in range(1, self._threads):
                thread = threading.Thread(
                    target=self._functions.worker,
                    args=(self._constants.ctypes.data, self.workspace.ctypes.data, index, self._threads, before),
                    name=f"repvgg-engine-{index}",
                    daemon=True,
                )
                thread.start()
                self._pool.append(thread)
        except BaseException:
            # A call must never begin with fewer threads than it waits for.
            self._stop()
            raise

    def _stop(self) -> None:
        if not self._pool:
            return
        self._functions.stop(self.workspace.ctypes.data)
        for thread in self._pool:
            thread.join()
        self._pool = []
        self.workspace.view(np.int32)[sync.LINE * sync.STOP // 4] = 0

    def close(self) -> None:
        """Ends the threads, after the call that may be running, and frees the code."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop()
            self._code.close()

    def _after_fork(self) -> None:
        # Threads do not come along, nor does whoever held the lock.
        self._lock = threading.Lock()
        self._pool = []
        counters = self.workspace[: sync.sync_bytes(self._threads) // 4]
        counters[:] = 0


def _close_all() -> None:
    # Before the interpreter takes memory apart that threads still read.
    for workers in list(_all):
        workers.close()


def _after_fork() -> None:
    for workers in list(_all):
        workers._after_fork()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
