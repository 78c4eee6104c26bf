"""From LLVM's intermediate language to machine code, in memory or as an object file."""

import threading
from typing import Any

from repvgg.engine.isa import Isa, binding

_lock = threading.Lock()
_ready = False


def target_machine(isa: Isa, *, jit: bool) -> Any:
    """LLVM's description of what code is written for."""
    global _ready  # noqa: PLW0603 - LLVM is initialized once a process
    llvm = binding()
    with _lock:
        if not _ready:
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
            _ready = True
    target = llvm.Target.from_triple(isa.triple)
    return target.create_target_machine(
        cpu=isa.cpu,
        features=isa.features,
        opt=2,
        reloc="default" if jit else "pic",
        codemodel="jitdefault" if jit else "default",
    )


def object_file(ir: str, isa: Isa) -> bytes:
    """The program as an object file, position independent."""
    module = binding().parse_assembly(ir)
    code: bytes = target_machine(isa, jit=False).emit_object(module)
    return code


class Code:
    """Machine code in this process; freed when it is closed."""

    def __init__(self, ir: str, isa: Isa) -> None:
        llvm = binding()
        module = llvm.parse_assembly(ir)
        self._engine: Any = llvm.create_mcjit_compiler(module, target_machine(isa, jit=True))
        self._engine.finalize_object()

    def address(self, symbol: str) -> int:
        """Where a function begins."""
        return int(self._engine.get_function_address(symbol))

    def close(self) -> None:
        """Frees the code; nothing of it may run any more."""
        self._engine.close()
