"""How threads share work and wait for one another, in generated code.

A phase's tasks are dealt to threads in equal ranges; a thread that is done takes tasks of the others' ranges. A phase
ends with its last task, not with its last thread: one whose core was taken away is waited for only while it has tasks.
It may come back when the others are phases, or calls, ahead: then it finds nothing to do, because every counter carries
the number of its call. Waiting threads spin for some microseconds, then give up the core, then sleep in the kernel (a
futex, where there is one).

Cores that do not share a cache take half a microsecond to hand a line over. So what is taken of a range is counted in a
line that others touch only when they help with it, and what is done is reported once a range.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from repvgg.engine.isa import Isa
from repvgg.engine.layout import Phase, aligned

LINE = 64
"""Bytes between words that change at different times, so that no two share a cache line."""

JOB, JOB_SLEEPERS, STOP, PROGRESS, PROGRESS_SLEEPERS, ARRIVED, END = range(7)
"""Places of words at the start of the workspace, in lines. The job's number is followed by where its images and outputs
are; progress counts ends of phases. At the end is a line for each thread, for what it notes for itself."""

POINTERS = "ptr %constants, ptr %workspace, ptr %images, ptr %outputs"

SPINS, YIELDS = 2000, 20
"""Pauses of a waiting thread before it gives up its core, and how often it does that before it sleeps."""
IDLE_SPINS = 4000
"""Pauses of a thread that waits for the next call."""


def sync_bytes(threads: int) -> int:
    """Memory of the words, and of each thread's note; all zero before the first call."""
    return LINE * (END + threads)


def counter_bytes(phases: int, threads: int) -> int:
    """Memory of the counters of all phases."""
    return (threads + 1) * _row(phases)


def _row(phases: int) -> int:
    """Bytes of one counter of all phases: the tasks taken from a thread's range, or, in the last row, those done."""
    return aligned(8 * phases, LINE)


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

define internal void @share(
  ptr %phase, i64 %tasks, ptr %counters, i64 %row, ptr %finished, {POINTERS}, i64 %thread, i64 %threads, i64 %call
) noinline nounwind {{
entry:
  %progress = getelementptr i8, ptr %workspace, i64 {LINE * PROGRESS}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * PROGRESS_SLEEPERS}
  br label %range
range:
  %k = phi i64 [ 0, %entry ], [ %k2, %next_range ]
  %sum = add i64 %thread, %k
  %over = icmp sge i64 %sum, %threads
  %wrapped = sub i64 %sum, %threads
  %owner = select i1 %over, i64 %wrapped, i64 %sum
  %low_product = mul i64 %tasks, %owner
  %low = udiv i64 %low_product, %threads
  %owner2 = add i64 %owner, 1
  %high_product = mul i64 %tasks, %owner2
  %high = udiv i64 %high_product, %threads
  %distance = mul i64 %row, %owner
  %ticket = getelementptr i8, ptr %counters, i64 %distance
  br label %take
take:
  %mine_done = phi i64 [ 0, %range ], [ %mine_done, %try ], [ %one_more, %work ]
  %old = load atomic i64, ptr %ticket seq_cst, align 8
  %of = lshr i64 %old, 32
  %current_ticket = icmp eq i64 %of, %call
  br i1 %current_ticket, label %count, label %done
count:
  %taken = and i64 %old, 4294967295
  %task = add i64 %low, %taken
  %some = icmp slt i64 %task, %high
  br i1 %some, label %try, label %range_done
try:
  %next = add i64 %old, 1
  %pair = cmpxchg ptr %ticket, i64 %old, i64 %next seq_cst seq_cst
  %got = extractvalue {{ i64, i1 }} %pair, 1
  br i1 %got, label %work, label %take
work:
  call void %phase({POINTERS}, i64 %thread, i64 0, i64 %task)
  %one_more = add i64 %mine_done, 1
  br label %take
range_done:
  %any_done = icmp ne i64 %mine_done, 0
  br i1 %any_done, label %report, label %next_range
report:
  %before = atomicrmw add ptr %finished, i64 %mine_done seq_cst
  %low_bits = and i64 %before, 4294967295
  %now_done = add i64 %low_bits, %mine_done
  %last = icmp eq i64 %now_done, %tasks
  br i1 %last, label %tell, label %next_range
tell:
  call void @open(ptr %progress, ptr %sleepers)
  br label %next_range
next_range:
  %k2 = add i64 %k, 1
  %again = icmp slt i64 %k2, %threads
  br i1 %again, label %range, label %look
look:
  %seen = load atomic i32, ptr %progress seq_cst, align 4
  %state = load atomic i64, ptr %finished seq_cst, align 8
  %state_of = lshr i64 %state, 32
  %current = icmp eq i64 %state_of, %call
  br i1 %current, label %compare, label %done
compare:
  %so_far = and i64 %state, 4294967295
  %complete = icmp eq i64 %so_far, %tasks
  br i1 %complete, label %done, label %stay
stay:
  call void @wait(ptr %progress, ptr %sleepers, i32 %seen, i64 {SPINS})
  br label %look
done:
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


def entry(phases: Sequence[Phase], exported: str, counters: int, threads: int, clock: Clock | None = None) -> str:
    """The function by which others' threads compute together: each of them calls it, and it begins when all have.

    Args:
        phases: in order.
        exported: the symbol of the former.
        counters: where in the workspace the phases' counters are, in bytes.
        threads: that may take part.
        clock: notes times.
    """
    row = _row(len(phases))
    lines = [
        f"define internal void @take_part({POINTERS}, i64 %thread, i64 %threads, i32 %number) nounwind {{",
        "entry:",
        "  %call = zext i32 %number to i64",
    ]
    if clock is not None:
        lines += ["  %first = icmp eq i64 %thread, 0", *_tick(clock, 0)]
    for index, phase in enumerate(phases):
        place = counters + 8 * index
        lines += [
            f"  %counters{index} = getelementptr i8, ptr %workspace, i64 {place}",
            f"  %finished{index} = getelementptr i8, ptr %workspace, i64 {place + row * threads}",
            f"  call void @share(ptr @{phase.function}, i64 {phase.tasks}, ptr %counters{index}, i64 {row}, "
            f"ptr %finished{index}, {POINTERS}, i64 %thread, i64 %threads, i64 %call)",
        ]
        if clock is not None:
            lines += _tick(clock, index + 1)
    text = "\n".join([*lines, "  ret void", "}", ""])
    declared = "" if clock is None else "declare i32 @clock_gettime(i32, ptr)\n"
    text += f"""
define void @{exported}({POINTERS}, i64 %thread, i64 %threads) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * JOB_SLEEPERS}
  %arrived = getelementptr i8, ptr %workspace, i64 {LINE * ARRIVED}
  %seen = load atomic i32, ptr %job seq_cst, align 4
  %before = atomicrmw add ptr %arrived, i64 1 seq_cst
  %count = add i64 %before, 1
  %last = icmp eq i64 %count, %threads
  br i1 %last, label %first, label %stay
first:
  store atomic i64 0, ptr %arrived seq_cst, align 8
  call void @begin(ptr %workspace)
  br label %go
stay:
  call void @wait(ptr %job, ptr %sleepers, i32 %seen, i64 {SPINS})
  br label %go
go:
  %number = load atomic i32, ptr %job seq_cst, align 4
  call void @take_part({POINTERS}, i64 %thread, i64 %threads, i32 %number)
  ret void
}}
"""
    return declared + text + _begin(counters, counter_bytes(len(phases), threads))


def _begin(counters: int, size: int) -> str:
    """Gives all counters the number of the next call, then announces it."""
    return f"""
define internal void @begin(ptr %workspace) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %sleepers = getelementptr i8, ptr %workspace, i64 {LINE * JOB_SLEEPERS}
  %counters = getelementptr i8, ptr %workspace, i64 {counters}
  %before = load atomic i32, ptr %job seq_cst, align 4
  %number = add i32 %before, 1
  %wide = zext i32 %number to i64
  %fresh = shl i64 %wide, 32
  br label %reset
reset:
  %i = phi i64 [ 0, %entry ], [ %i2, %reset ]
  %counter = getelementptr i64, ptr %counters, i64 %i
  store atomic i64 %fresh, ptr %counter monotonic, align 8
  %i2 = add i64 %i, 1
  %more = icmp slt i64 %i2, {size // 8}
  br i1 %more, label %reset, label %announce
announce:
  call void @open(ptr %job, ptr %sleepers)
  ret void
}}
"""


def _tick(clock: Clock, index: int) -> list[str]:
    return [
        f"  br i1 %first, label %note{index}, label %go{index}",
        f"note{index}:",
        f"  %at{index} = getelementptr i8, ptr %workspace, i64 {clock.place + 16 * index}",
        f"  call i32 @clock_gettime(i32 {clock.kind}, ptr %at{index})",
        f"  br label %go{index}",
        f"go{index}:",
    ]


def worker() -> str:
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
  %now = load atomic i32, ptr %job seq_cst, align 4
  %images = load atomic ptr, ptr %images_at monotonic, align 8
  %outputs = load atomic ptr, ptr %outputs_at monotonic, align 8
  call void @take_part({POINTERS}, i64 %thread, i64 %threads, i32 %now)
  br label %idle
done:
  ret void
}}

define void @call({POINTERS}, i64 %threads) nounwind {{
entry:
  %job = getelementptr i8, ptr %workspace, i64 {LINE * JOB}
  %images_at = getelementptr i8, ptr %job, i64 8
  %outputs_at = getelementptr i8, ptr %job, i64 16
  store atomic ptr %images, ptr %images_at monotonic, align 8
  store atomic ptr %outputs, ptr %outputs_at monotonic, align 8
  call void @begin(ptr %workspace)
  %number = load atomic i32, ptr %job seq_cst, align 4
  call void @take_part({POINTERS}, i64 0, i64 %threads, i32 %number)
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
