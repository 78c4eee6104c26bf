"""A process that loads one object file and runs it for whoever started it: `python -m ...object.worker FILE`.

It writes the file's own description on a line, and then answers: a number of threads (int32) and images go in, a status
(int32) and outputs come out, for as long as standard input is open.
"""

import ctypes
import math
import sys
from pathlib import Path

import numpy as np

from repvgg.engine.isa import binding, host_isa
from repvgg.engine.library import DESCRIPTION, RUN
from repvgg.engine.machine import target_machine
from repvgg.targets.object.description import Description


def main(path: Path) -> None:
    """Answers until standard input ends."""
    llvm = binding()
    code = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(host_isa(), jit=True))
    code.add_object_file(llvm.ObjectFileRef.from_data(path.read_bytes()))
    code.finalize_object()
    address = code.get_global_value_address(DESCRIPTION)
    if not address:
        sys.exit(f"'{path}' is not an object file of this package: it has no symbol '{DESCRIPTION}'.")
    text = ctypes.string_at(address)
    sys.stdout.buffer.write(text + b"\n")
    sys.stdout.buffer.flush()
    description = Description.from_json(text.decode())
    pointer = ctypes.c_void_p
    run = ctypes.CFUNCTYPE(ctypes.c_int32, pointer, pointer, pointer, ctypes.c_int32)(code.get_function_address(RUN))
    workspace = np.zeros(description.workspace, np.uint8)
    outputs = np.empty(sum(math.prod(shape) for shape in description.outputs.values()), np.float32)
    size = 4 + 4 * math.prod(description.input_shape)
    while len(asked := sys.stdin.buffer.read(size)) == size:
        threads = int.from_bytes(asked[:4], "little", signed=True)
        images = np.frombuffer(asked, np.float32, offset=4).copy()
        status = run(images.ctypes.data, outputs.ctypes.data, workspace.ctypes.data, threads)
        sys.stdout.buffer.write(int(status).to_bytes(4, "little", signed=True) + outputs.tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
