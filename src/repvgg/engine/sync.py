"""How threads share work and wait for one another, in generated code.

A phase's tasks are dealt to threads in equal ranges; a thread that is done takes tasks of the others' ranges, so one
whose core was taken away is not waited for longer than its last task. Then all meet: whoever comes last opens the gate.
The others spin for some microseconds, then give up the core, then sleep in the kernel (a futex, where there is one).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from repvgg.engine.isa import Isa
from repvgg.engine.layout import Phase

LINE = 64
"""Bytes between counters, so that no two share a cache line."""

ARRIVED, GATE, SLEEPERS, JOB, JOB_SLEEPERS, STOP, FIRST_TICKET = range(7)
"""Places of counters in the workspace, in lines."""

POINTERS = "ptr %constants, ptr %workspace, ptr %images, ptr %outputs"

SPINS, YIELDS = 2000, 20
"""Pauses of a waiting thread before it gives up its core, and how often it does that before it sleeps."""
IDLE_SPINS = 4000
"""Pauses of a thread that waits for the next call."""


def sync_bytes(threads: int) -> int:
    """Memory of the counters; all zero before the first call."""
    return LINE * (FIRST_TICKET + threads)


_FUTEX = {"x86_64": 202, "aarch64": 98}


def _system(isa: Isa) -> tuple[str, str, str]:
    """Declarations, a sleep on %word while it is %seen, and the waking of all who sleep on %word."""
    if isa.is_linux:
        call = _FUTEX[isa.triple.split("-", maxsplit=1)[0]]
        # 128 is FUTEX_PRIVATE_FLAG; 0 waits, 1 wakes.
        sleep = f"  call i64 (i64, ...) @syscall(i64 {call}, ptr %word, i32 128, i32 %seen, ptr null)\n"
        wake = f"  call i64 (i64, ...) @syscall(i64 {call}, ptr %word, i32 129, i32 2147483647)\n"
        return "declare i64 @syscall(i64, ...)\ndeclare i32 @sched_yield()\n", sleep, wake
    return "declare i32 @sched_yield()\ndeclare i32 @usleep(i32)\n", "  call i32 @usleep(i32 50)\n", ""


def _pause(isa: Isa) -> tuple[str, str]:
    if isa.is_x86:
        return "declare void @llvm.x86.sse2.pause()\n", "  call void @llvm.x86.sse2.pause()\n"
    if isa.name == "neon":
        return "declare void @llvm.aarch64.hint(i32)\n", "  call void @llvm.aarch64.hint(i32 1)\n"
    return "", ""


def waiting(isa: Isa) -> str:
    """Functions to wait until a word changes, to open a gate, to meet, and to take part in a phase."""
    system, sleep, wake = _system(isa)
    declare_pause, pause = _pause(isa)
    return f"""{system}{declare_pause}
define internal void @wait(ptr %word, ptr %sleepers, i32 %seen, i64 %spins) noinline nounwind {{
entry:
  %yield_until = add i64 %spins, {YIELDS}
  br label %look
look:
  %turn = phi i64 [ 0, %entry ], [ %next, %spin ], [ %next, %yield ], [ %next, %sleep ]
  %next = add i64 %turn, 1
  %now = load atomic i32, ptr %word seq_cst, align 4
  %same = icmp eq i32 %now, %seen
  br i1 %same, label %choose, label %done
choose:
  %early = icmp slt i64 %turn, %spins
  br i1 %early, label %spin, label %later
later:
  %patient = icmp slt i64 %turn, %yield_until
  br i1 %patient, label %yield, label %sleep
spin:
{pause}  br label %look
yield:
  call i32 @sched_yield()
  br label %look
sleep:
  atomicrmw add ptr %sleepers, i64 1 seq_cst
{sleep}  atomicrmw sub ptr %sleepers, i64 1 seq_cst
  br label %look
done:
  ret void
}}

define internal void @open(ptr %word, ptr %sleepers) noinline nounwind {{
entry:
  atomicrmw add ptr %word, i32 1 seq_cst
  %asleep = load atomic i64, ptr %sleepers seq_cst, align 8
  %any = icmp ne i64 %asleep, 0
  br i1 %any, label %wake, label %done
wake:
{wake}  br label %done
done:
  ret void
}}

define internal void @meet(ptr %sync, i64 %threads) noinline nounwind {{
entry:
  %gate = getelementptr i8, ptr %sync, i64 {LINE * GATE}
  %sleepers = getelementptr i8, ptr %sync, i64 {LINE * SLEEPERS}
  %tickets = getelementptr i8, ptr %sync, i64 {LINE * FIRST_TICKET}
  %seen = load atomic i32, ptr %gate seq_cst, align 4
  %arrived = getelementptr i8, ptr %sync, i64 {LINE * ARRIVED}
  %before = atomicrmw add ptr %arrived, i64 1 seq_cst
  %count = add i64 %before, 1
  %last = icmp eq i64 %count, %threads
  br i1 %last, label %reset, label %stay
reset:
  %t = phi i64 [ 0, %entry ], [ %t2, %reset ]
  %at = mul i64 %t, {LINE}
  %ticket = getelementptr i8, ptr %tickets, i64 %at
  store atomic i64 0, ptr %ticket monotonic, align 8
  %t2 = add i64 %t, 1
  %more = icmp slt i64 %t2, %threads
  br i1 %more, label %reset, label %go
go:
  store atomic i64 0, ptr %arrived monotonic, align 8
  call void @open(ptr %gate, ptr %sleepers)
  ret void
stay:
  call void @wait(ptr %gate, ptr %sleepers, i32 %seen, i64 {SPINS})
  ret void
}}

define internal void @share(
  ptr %phase, i64 %tasks, {POINTERS}, i64 %thread, i64 %threads
) noinline nounwind {{
entry:
  br label %range
range:
  %k = phi i64 [ 0, %entry ], [ %k2, %range_done ]
  %sum = add i64 %thread, %k
  %over = icmp sge i64 %sum, %threads
  %wrapped = sub i64 %sum, %threads
  %owner = select i1 %over, i64 %wrapped, i64 %sum
  %low_product = mul i64 %tasks, %owner
  %low = udiv i64 %low_product, %threads
  %owner2 = add i64 %owner, 1
  %high_product = mul i64 %tasks, %owner2
  %high = udiv i64 %high_product, %threads
  %line = add i64 %owner, {FIRST_TICKET}
  %place = mul i64 %line, {LINE}
  %ticket = getelementptr i8, ptr %workspace, i64 %place
  br label %take
take:
  %taken = atomicrmw add ptr %ticket, i64 1 monotonic
  %task = add i64 %low, %taken
  %some = icmp slt i64 %task, %high
  br i1 %some, label %work, label %range_done
work:
  call void %phase({POINTERS}, i64 %thread, i64 0, i64 %task)
  br label %take
range_done:
  %k2 = add i64 %k, 1
  %again = icmp slt i64 %k2, %threads
  br i1 %again, label %range, label %done
done:
  call void @meet(ptr %workspace, i64 %threads)
  ret void
}}
"""


@dataclass(frozen=True)
class Clock:
    """Where the first thread notes the time at the start and after every phase.

    Attributes:
        place: in the workspace, in bytes; 16 for each time (seconds, nanoseconds).
        kind: 1 for time that passes, 3 for time in which the thread has a core (POSIX's numbers on Linux).
    """

    place: int
    kind: int


def entry(phases: Sequence[Phase], exported: str, clock: Clock | None = None) -> str:
    """The function that every thread calls; with a clock, one that notes times."""
    lines = [f"define void @{exported}({POINTERS}, i64 %thread, i64 %threads) nounwind {{", "entry:"]
    if clock is not None:
        lines += ["  %first = icmp eq i64 %thread, 0", *_tick(clock, 0)]
    for index, phase in enumerate(phases, start=1):
        lines.append(
            f"  call void @share(ptr @{phase.function}, i64 {phase.tasks}, {POINTERS}, i64 %thread, i64 %threads)"
        )
        if clock is not None:
            lines += _tick(clock, index)
    text = "\n".join([*lines, "  ret void", "}", ""])
    return text if clock is None else "declare i32 @clock_gettime(i32, ptr)\n" + text


def _tick(clock: Clock, index: int) -> list[str]:
    return [
        f"  br i1 %first, label %note{index}, label %go{index}",
        f"note{index}:",
        f"  %at{index} = getelementptr i8, ptr %workspace, i64 {clock.place + 16 * index}",
        f"  call i32 @clock_gettime(i32 {clock.kind}, ptr %at{index})",
        f"  br label %go{index}",
        f"go{index}:",
    ]


def worker(entry_name: str) -> str:
    """A function for a thread that waits for calls, takes part in each, and returns when it is told to stop.

    A call is announced by `call`, which takes part itself as thread 0 and returns when the answers are there.
    """
    return f"""
define void @worker(ptr %constants, ptr %workspace, i64 %thread, i64 %threads, i32 %before) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * JOB_SLEEPERS}
  %stop = getelementptr i8, ptr %workspace, i64 {LINE * STOP}
  %images_at = getelementptr i8, ptr %job, i64 8
  %outputs_at = getelementptr i8, ptr %job, i64 16
  br label %idle
idle:
  %seen = phi i32 [ %before, %entry ], [ %now, %work ]
  call void @wait(ptr %job, ptr %sleepers, i32 %seen, i64 {IDLE_SPINS})
  %stopping = load atomic i64, ptr %stop seq_cst, align 8
  %leave = icmp ne i64 %stopping, 0
  br i1 %leave, label %done, label %work
work:
  %now = add i32 %seen, 1
  %images = load ptr, ptr %images_at, align 8
  %outputs = load ptr, ptr %outputs_at, align 8
  call void @{entry_name}({POINTERS}, i64 %thread, i64 %threads)
  br label %idle
done:
  ret void
}}

define void @call({POINTERS}, i64 %threads) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * JOB_SLEEPERS}
  %images_at = getelementptr i8, ptr %job, i64 8
  %outputs_at = getelementptr i8, ptr %job, i64 16
  store ptr %images, ptr %images_at, align 8
  store ptr %outputs, ptr %outputs_at, align 8
  call void @open(ptr %job, ptr %sleepers)
  call void @{entry_name}({POINTERS}, i64 0, i64 %threads)
  ret void
}}

define void @stop(ptr %workspace) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * JOB_SLEEPERS}
  %stop = getelementptr i8, ptr %workspace, i64 {LINE * STOP}
  store atomic i64 1, ptr %stop seq_cst, align 8
  call void @open(ptr %job, ptr %sleepers)
  ret void
}}
"""
