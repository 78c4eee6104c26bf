"""What LLVM makes of the code: kernels without spills, for processors of other kinds, too."""

import re
import struct
from dataclasses import replace

import pytest
from plain_networks import network, schedule_of

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.engine import host_isa, isa, isa_for
from repvgg.engine.emit.matrix import block_product
from repvgg.engine.ir import declarations
from repvgg.engine.isa import PROCESSORS, Isa
from repvgg.engine.library import DESCRIPTION, RUN, library
from repvgg.engine.machine import binding, object_file, target_machine
from repvgg.engine.pack import pack
from repvgg.engine.program import ENTRY, build
from repvgg.engine.schedule import most_rows

MULTIPLY_ADD = {"sse": "mulps", "avx2": "vfmadd", "avx512": "vfmadd", "neon": "fmla"}
STACK = re.compile(r"\(%r[sb]p\)|\[sp")


def assembly(ir: str, isa: Isa) -> str:
    """The program as text a person can read."""
    text: str = target_machine(isa, jit=False).emit_assembly(binding().parse_assembly(ir))
    return text


def loop_of(text: str) -> list[str]:
    """The instructions of the first loop of the function called 'kernel'."""
    start = re.search(r"^\.?LBB0_1:", text, re.MULTILINE)
    assert start is not None
    end = re.search(r"^\s+(j\w+|b\.\w+)\s+\.?LBB0_1$", text[start.end() :], re.MULTILINE)
    assert end is not None
    return text[start.end() :][: end.start()].splitlines()


@pytest.mark.parametrize("vectors", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("processor", PROCESSORS)
def test_the_micro_kernel_stays_in_registers(processor: str, vectors: int) -> None:
    machine = isa_for(processor)
    rows = most_rows(machine, vectors)
    function = block_product("kernel", machine, rows, vectors, 192, 192, add=False, lines=1)
    loop = loop_of(assembly(declarations(machine) + function.replace("define internal", "define"), machine))
    # Four steps of the depth are written out, and nothing of them goes to the stack.
    assert sum(MULTIPLY_ADD[machine.name] in line for line in loop) == 4 * rows * vectors
    assert not [line for line in loop if STACK.search(line)]


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_network_becomes_an_object_file_for_any_processor(processor: str) -> None:
    machine = isa_for(processor)
    plan = network(squeeze_excite="after_activation")
    program = build(plan, schedule_of(plan, (32, 32), threads=2, isa=machine))
    code = object_file(program.ir, machine)
    assert b"repvgg_thread" in code
    assert "inttoptr" not in program.ir


PLATFORMS = {"apple-m1": 0x0100000C, "apple-x86-64-v3": 0x01000007}
"""Numbers of processors in Mach-O files."""
LOAD_SYMBOLS, LOAD_BUILD_VERSION = 0x2, 0x32


def symbols_of(code: bytes) -> tuple[dict[str, bool], set[int]]:
    """Names of a 64-bit Mach-O object file and whether they are defined there, and its load commands."""
    (count,) = struct.unpack_from("<I", code, 16)
    at, commands, names = 32, set(), {}
    for _ in range(count):
        command, size = struct.unpack_from("<II", code, at)
        commands.add(command)
        if command == LOAD_SYMBOLS:
            table, number, text, _length = struct.unpack_from("<IIII", code, at + 8)
            for index in range(number):
                place, kind = struct.unpack_from("<IB", code, table + 16 * index)
                if kind & 1:
                    name = code[text + place : code.index(b"\0", text + place)].decode()
                    names[name] = kind & 0x0E != 0
        at += size
    return names, commands


@pytest.mark.parametrize("processor", PLATFORMS)
def test_an_object_file_for_macos_defines_what_its_header_says_and_needs_what_the_system_has(processor: str) -> None:
    machine = isa_for(processor)
    plan = network(squeeze_excite="before_activation")
    program = build(plan, schedule_of(plan, (32, 32), threads=2, isa=machine))
    code = library(program, "what it is")
    magic, kind_of_processor, _, kind_of_file = struct.unpack_from("<IIII", code)
    assert (magic, kind_of_processor, kind_of_file) == (0xFEEDFACF, PLATFORMS[processor], 1)
    names, commands = symbols_of(code)
    assert LOAD_BUILD_VERSION in commands or 0x24 in commands
    assert {name for name, defined in names.items() if defined} == {f"_{ENTRY}", f"_{RUN}", f"_{DESCRIPTION}"}
    system = {"_pthread_create", "_pthread_join", "_sched_yield", "_usleep"}
    assert {name for name, defined in names.items() if not defined} <= system | {"_memset", "_memcpy", "_bzero"}
    # The weights are in it: the kernel's numbers of one filter, as they are packed.
    assert pack(program.arrays).tobytes() in code
    windows = replace(program.schedule, isa=replace(machine, triple="x86_64-pc-windows-msvc"))
    with pytest.raises(InputError, match=r"written for Linux \(ELF\) and macOS \(Mach-O\)"):
        library(replace(program, schedule=windows), "")


def test_the_same_plan_gives_the_same_program() -> None:
    plan = network()
    programs = [build(plan, schedule_of(plan, (32, 32), threads=2)) for _ in range(2)]
    assert programs[0].ir == programs[1].ir


class FakeLlvm:
    """A machine as LLVM would describe it."""

    def __init__(self, triple: str, features: dict[str, bool]) -> None:
        self.triple, self.features = triple, features

    def get_process_triple(self) -> str:
        return self.triple

    def get_host_cpu_name(self) -> str:
        return "testing"

    def get_host_cpu_features(self) -> dict[str, bool]:
        return self.features


def test_a_machine_without_multiply_add_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "binding", lambda: FakeLlvm("x86_64-unknown-linux-gnu", {"sse4.2": True, "avx2": False}))
    with pytest.raises(InputError, match=r"This processor \(testing\) has no fused multiply-add.*\.onnx"):
        host_isa()
    monkeypatch.setattr(isa, "binding", lambda: FakeLlvm("riscv64-unknown-linux-gnu", {}))
    with pytest.raises(InputError, match="this is riscv64"):
        host_isa()


def test_features_are_asked_for_and_can_be_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = {"avx2": True, "fma": True, **{f"avx512{part}": True for part in ("f", "vl", "dq", "bw")}}
    monkeypatch.setattr(isa, "binding", lambda: FakeLlvm("x86_64-unknown-linux-gnu", wide))
    monkeypatch.delenv("REPVGG_PROCESSOR", raising=False)
    assert host_isa().name == "avx512"
    capped = host_isa("avx2")
    assert (capped.name, capped.lanes, capped.registers) == ("avx2", 8, 16)
    assert "-avx512f" in capped.features
    monkeypatch.setenv("REPVGG_PROCESSOR", "avx2")
    assert host_isa() == capped
    assert host_isa("avx512").name == "avx512"
    monkeypatch.setattr(isa, "binding", lambda: FakeLlvm("arm64-apple-darwin", {"neon": True}))
    assert host_isa().name == "neon"
    with pytest.raises(UnknownNameError, match="no instruction set for this processor called 'avx2'"):
        host_isa("avx2")
    with pytest.raises(UnknownNameError, match="no processor called 'x86-64-v9'"):
        isa_for("x86-64-v9")
