"""Object files, loaded into this process to be proved.

An object file is machine code: whoever loads one runs whatever is in it. So it is loaded by name, here, right after it
was written, and its ending is not in the table of files that `load_runner` opens.
"""

import ctypes
from pathlib import Path

import numpy as np

from repvgg.base.errors import FileError, InputError
from repvgg.base.metadata import Metadata
from repvgg.engine.isa import PROCESSORS, SETS, Isa, binding, host_isa, isa_for
from repvgg.engine.library import DESCRIPTION, RUN, Status
from repvgg.engine.machine import target_machine
from repvgg.runners.runner import Runner, as_input
from repvgg.targets.object.write import Description


class ObjectRunner(Runner):
    """Calls `repvgg_run` of an object file of this package's own writing."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        llvm = binding()
        self.name = path.name
        module = llvm.parse_assembly("")
        # Keeps the code alive.
        self._code = llvm.create_mcjit_compiler(module, target_machine(host_isa(), jit=True))
        self._code.add_object_file(llvm.ObjectFileRef.from_data(path.read_bytes()))
        self._code.finalize_object()
        address = self._code.get_global_value_address(DESCRIPTION)
        if not address:
            raise FileError(f"'{path}' is not an object file of this package: it has no symbol '{DESCRIPTION}'.")
        text = ctypes.string_at(address).decode()
        self.description = Description.from_json(text)
        self.metadata = Metadata.from_json(self.description.metadata)
        batch, *sides = self.description.input_shape
        self.batch_size = batch
        self.input_shape = (sides[0], sides[1], sides[2])
        self._threads = threads or self.description.threads
        pointer = ctypes.c_void_p
        self._run = ctypes.CFUNCTYPE(ctypes.c_int, pointer, pointer, pointer, ctypes.c_int)(
            self._code.get_function_address(RUN)
        )
        self._workspace = np.zeros(self.description.workspace, np.uint8)

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
        flat = np.empty(sum(counts.values()), np.float32)
        status = self._run(batch.ctypes.data, flat.ctypes.data, self._workspace.ctypes.data, self._threads)
        if status != Status.OK:
            raise InputError(f"'{self.name}' returned {Status(status).name} for these images.")
        parts = np.split(flat, np.cumsum(list(counts.values()))[:-1])
        found = {
            name: part.reshape(shape)
            for (name, shape), part in zip(self.description.outputs.items(), parts, strict=True)
        }
        return {"output": next(iter(found.values()))} if len(found) == 1 else found


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
