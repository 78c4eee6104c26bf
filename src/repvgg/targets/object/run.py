"""Object files, run in a process of their own to be proved.

An object file is machine code: whoever loads one runs whatever is in it. So it is loaded by name, here, right after it
was written, and its ending is not in the table of files that `load_runner` opens. The process of its own is small: code
and weights of an object file have to lie within 2 GiB of each other, for which a large one may have no room.
"""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from threading import Lock
from typing import IO

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Metadata
from repvgg.engine.isa import PROCESSORS, SETS, Isa, host_isa, isa_for
from repvgg.engine.library import Status
from repvgg.runners.runner import Runner, as_input
from repvgg.targets.object.description import Description


class ObjectRunner(Runner):
    """Calls `repvgg_run` of an object file of this package's own writing."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.name = path.name
        command = [sys.executable, "-m", "repvgg.targets.object.worker", str(path)]
        # Where this process found the package, the other one finds it.
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        self._finalizer = weakref.finalize(self, _end, self._process)
        self._lock = Lock()
        try:
            self.description = Description.from_json(self._pipe_out.readline().decode())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise FileError(f"'{path}' cannot be run as an object file: {self._last_words()}") from error
        self.metadata = Metadata.from_json(self.description.metadata)
        batch, *sides = self.description.input_shape
        self.batch_size = batch
        self.input_shape = (sides[0], sides[1], sides[2])
        self._threads = threads or self.description.threads

    @classmethod
    def load(cls, path: Path, threads: int | None = None) -> "ObjectRunner":
        """Loads an `.o` file that can be trusted.

        Raises:
            FileError: if it has not the symbols of such a file.
        """
        return cls(path, threads)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        return next(iter(self.outputs(images).values()))

    def outputs(self, images: np.ndarray) -> dict[str, np.ndarray]:
        batch = np.ascontiguousarray(as_input(self, images, np.float32))
        counts = {name: int(np.prod(shape)) for name, shape in self.description.outputs.items()}
        size = 4 + 4 * sum(counts.values())
        with self._lock:
            try:
                self._pipe_in.write(self._threads.to_bytes(4, "little", signed=True) + batch.tobytes())
                self._pipe_in.flush()
                answer = self._pipe_out.read(size)
            except BrokenPipeError:
                answer = b""
        if len(answer) != size:
            raise FileError(f"'{self.name}' ended while it ran: {self._last_words()}")
        status = int.from_bytes(answer[:4], "little", signed=True)
        if status != Status.OK:
            raise InputError(f"'{self.name}' returned {Status(status).name} for these images.")
        flat = np.frombuffer(answer, np.float32, offset=4)
        parts = np.split(flat, np.cumsum(list(counts.values()))[:-1])
        found = {
            name: part.reshape(shape)
            for (name, shape), part in zip(self.description.outputs.items(), parts, strict=True)
        }
        return {"output": next(iter(found.values()))} if len(found) == 1 else found

    @property
    def _pipe_in(self) -> IO[bytes]:
        return _open(self._process.stdin)

    @property
    def _pipe_out(self) -> IO[bytes]:
        return _open(self._process.stdout)

    def _last_words(self) -> str:
        lines = _open(self._process.stderr).read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it ended with status {self._process.wait()}."


def _open(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("The process was started without this pipe.")
    return pipe


def _end(process: "subprocess.Popen[bytes]") -> None:
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
    process.wait()


def require_runnable(processor: str) -> None:
    """Refuses a kind of processor whose code this machine cannot run, and so cannot prove.

    Raises:
        UnknownNameError: if there is none of that name.
        InputError: if code for it does not run here.
    """
    here = host_isa()
    runnable = [name for name in PROCESSORS if _runs_on(isa_for(name), here)]
    if not _runs_on(isa_for(processor), here):
        raise InputError(
            f"Code for '{processor}' does not run on this machine, so it could not be proved here. Export on such a "
            f"machine, or for one of {', '.join(runnable)}."
        )


def _runs_on(isa: Isa, here: Isa) -> bool:
    order = list(SETS)
    same_kind = isa.is_x86 == here.is_x86 and isa.is_linux == here.is_linux
    return same_kind and order.index(isa.name) <= order.index(here.name)
