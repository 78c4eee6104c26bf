"""A program as an object file for people without Python: code, weights, and one function to call from C.

    int repvgg_run(const float *images, float *outputs, void *workspace, int threads);

It starts threads of its own for each call, and ends them; concurrent calls are fine with a workspace each. It returns
one of the values of `Status`.
"""

import secrets
from enum import IntEnum

from repvgg.base.errors import InputError
from repvgg.engine.machine import object_file
from repvgg.engine.pack import pack
from repvgg.engine.program import ENTRY, Program

RUN, DESCRIPTION = "repvgg_run", "repvgg_description"
"""Symbols of the object file: the function, and a text that ends with a zero."""

LINE = 64
"""The workspace begins at the first whole cache line of the memory that a caller gives."""

_STAMP = 64
"""Bytes at the beginning of the weights by which they are found in the object file."""


class Status(IntEnum):
    """What `repvgg_run` returns."""

    OK = 0
    NOT_FINITE = 1
    """Images, outputs or something between them hold NaN or infinity; outputs mean nothing then, since tiles spread
    such values."""
    BAD_THREADS = 2
    """`threads` is below 1 or above what the object was made for."""


def workspace_bytes(program: Program) -> int:
    """Memory that a caller gives; all zero before the first call, wherever it begins."""
    return program.workspace_bytes + LINE


def library(program: Program, description: str) -> bytes:
    """The object file.

    Args:
        program: for any processor LLVM knows.
        description: a text to keep in the file, under the symbol `repvgg_description`.

    Raises:
        InputError: if the program is for a system other than Linux and macOS.
    """
    isa = program.schedule.isa
    if not (isa.is_linux or isa.is_apple):
        raise InputError(f"Object files are written for Linux (ELF) and macOS (Mach-O); '{isa.triple}' is neither.")
    weights = pack(program.arrays).tobytes()
    # LLVM reads constants as text, a hundred times slower than they can be copied: the file is made with zeros in their
    # place, which are found by a stamp and filled in.
    stamp = secrets.token_bytes(_STAMP)
    text = description.encode() + b"\0"
    globals_ = (
        f"@repvgg_constants = internal constant <{{ [{_STAMP} x i8], [{len(weights) - _STAMP} x i8] }}> "
        f"<{{ [{_STAMP} x i8] c{_quoted(stamp)}, [{len(weights) - _STAMP} x i8] zeroinitializer }}>, align {LINE}\n"
        f"@{DESCRIPTION} = constant [{len(text)} x i8] c{_quoted(text)}\n"
    )
    code = object_file(program.ir + globals_ + _run(program), isa)
    start = code.find(stamp)
    end = start + len(weights)
    if start < 0 or code.find(stamp, start + 1) >= 0 or code.count(0, start + _STAMP, end) != len(weights) - _STAMP:
        raise InputError(f"LLVM wrote an object file for '{isa.triple}' whose weights cannot be filled in.")
    return code[:start] + weights + code[end:]


def _quoted(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:02X}" for byte in data) + '"'


def _run(program: Program) -> str:
    """`repvgg_run`, and what its threads do: wait until all have been started, then take part.

    A thread that the system refuses to start is done without: threads share out the work when they begin.
    """
    most = program.schedule.threads
    return f"""
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_join(i64, ptr)

; Whether numbers are all finite: zero times any other is not zero.
define internal i1 @repvgg_finite(ptr %numbers, i64 %count) nounwind {{
entry:
  %whole = and i64 %count, -8
  br label %eights
eights:
  %i = phi i64 [ 0, %entry ], [ %i2, %eight ]
  %sum = phi <8 x float> [ zeroinitializer, %entry ], [ %sum2, %eight ]
  %any_eight = icmp slt i64 %i, %whole
  br i1 %any_eight, label %eight, label %ones
eight:
  %at = getelementptr float, ptr %numbers, i64 %i
  %values = load <8 x float>, ptr %at, align 4
  %zeros = fmul <8 x float> %values, zeroinitializer
  %sum2 = fadd <8 x float> %sum, %zeros
  %i2 = add i64 %i, 8
  br label %eights
ones:
  %k = phi i64 [ %i, %eights ], [ %k2, %one ]
  %rest = phi float [ 0.0, %eights ], [ %rest2, %one ]
  %any_one = icmp slt i64 %k, %count
  br i1 %any_one, label %one, label %done
one:
  %at_one = getelementptr float, ptr %numbers, i64 %k
  %value = load float, ptr %at_one, align 4
  %zero = fmul float %value, 0.0
  %rest2 = fadd float %rest, %zero
  %k2 = add i64 %k, 1
  br label %ones
done:
  %equal = fcmp oeq <8 x float> %sum, zeroinitializer
  %bits = bitcast <8 x i1> %equal to i8
  %all_eights = icmp eq i8 %bits, -1
  %all_ones = fcmp oeq float %rest, 0.0
  %all = and i1 %all_eights, %all_ones
  ret i1 %all
}}

%call = type {{ i32, ptr, ptr, ptr, i64 }}
%part = type {{ ptr, i64 }}

define internal ptr @repvgg_part(ptr %part) nounwind {{
entry:
  %call = load ptr, ptr %part, align 8
  %index_at = getelementptr %part, ptr %part, i64 0, i32 1
  %index = load i64, ptr %index_at, align 8
  br label %look
look:
  %go = load atomic i32, ptr %call acquire, align 4
  %wait = icmp eq i32 %go, 0
  br i1 %wait, label %yield, label %work
yield:
  call i32 @sched_yield()
  br label %look
work:
  call void @repvgg_take_part(ptr %call, i64 %index)
  ret ptr null
}}

define internal void @repvgg_take_part(ptr %call, i64 %index) nounwind {{
entry:
  %workspace_at = getelementptr %call, ptr %call, i64 0, i32 1
  %images_at = getelementptr %call, ptr %call, i64 0, i32 2
  %outputs_at = getelementptr %call, ptr %call, i64 0, i32 3
  %threads_at = getelementptr %call, ptr %call, i64 0, i32 4
  %workspace = load ptr, ptr %workspace_at, align 8
  %images = load ptr, ptr %images_at, align 8
  %outputs = load ptr, ptr %outputs_at, align 8
  %threads = load i64, ptr %threads_at, align 8
  call void @{ENTRY}(ptr @repvgg_constants, ptr %workspace, ptr %images, ptr %outputs, i64 %index, i64 %threads)
  ret void
}}

define i32 @{RUN}(ptr %images, ptr %outputs, ptr %memory, i32 %asked) nounwind {{
entry:
  %call = alloca %call, align 8
  %parts = alloca [{most} x %part], align 8
  %handles = alloca [{most} x i64], align 8
  %few = icmp slt i32 %asked, 1
  %many = icmp sgt i32 %asked, {most}
  %bad = or i1 %few, %many
  br i1 %bad, label %bad_threads, label %prepare
prepare:
  %address = ptrtoint ptr %memory to i64
  %beyond = add i64 %address, {LINE - 1}
  %line = and i64 %beyond, {-LINE}
  %workspace = inttoptr i64 %line to ptr
  %workspace_at = getelementptr %call, ptr %call, i64 0, i32 1
  %images_at = getelementptr %call, ptr %call, i64 0, i32 2
  %outputs_at = getelementptr %call, ptr %call, i64 0, i32 3
  %threads_at = getelementptr %call, ptr %call, i64 0, i32 4
  store i32 0, ptr %call, align 4
  store ptr %workspace, ptr %workspace_at, align 8
  store ptr %images, ptr %images_at, align 8
  store ptr %outputs, ptr %outputs_at, align 8
  %wanted = sext i32 %asked to i64
  br label %more
more:
  %t = phi i64 [ 1, %prepare ], [ %t2, %start ]
  %enough = icmp sge i64 %t, %wanted
  br i1 %enough, label %begin, label %start_one
start_one:
  %part = getelementptr %part, ptr %parts, i64 %t
  %index_at = getelementptr %part, ptr %part, i64 0, i32 1
  store ptr %call, ptr %part, align 8
  store i64 %t, ptr %index_at, align 8
  %handle = getelementptr i64, ptr %handles, i64 %t
  %refused = call i32 @pthread_create(ptr %handle, ptr null, ptr @repvgg_part, ptr %part)
  %started = icmp eq i32 %refused, 0
  br i1 %started, label %start, label %begin
start:
  %t2 = add i64 %t, 1
  br label %more
begin:
  store i64 %t, ptr %threads_at, align 8
  store atomic i32 1, ptr %call release, align 4
  call void @repvgg_take_part(ptr %call, i64 0)
  br label %join
join:
  %j = phi i64 [ 1, %begin ], [ %j2, %join_one ]
  %left = icmp slt i64 %j, %t
  br i1 %left, label %join_one, label %joined
join_one:
  %handle_of = getelementptr i64, ptr %handles, i64 %j
  %thread = load i64, ptr %handle_of, align 8
  %ignored = call i32 @pthread_join(i64 %thread, ptr null)
  %j2 = add i64 %j, 1
  br label %join
joined:
  %good = call i1 @repvgg_finite(ptr %outputs, i64 {program.output_bytes // 4})
  br i1 %good, label %ok, label %not_finite
ok:
  ret i32 {int(Status.OK)}
not_finite:
  ret i32 {int(Status.NOT_FINITE)}
bad_threads:
  ret i32 {int(Status.BAD_THREADS)}
}}
"""
