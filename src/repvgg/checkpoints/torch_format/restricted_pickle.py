"""A pickle machine that can build tensors and plain containers, and nothing else.

Python's own unpickler can be narrowed to chosen names, but it still allocates what a length field claims, fills a memo
up to any index a file names, calls `__setstate__`, and asks the extension registry. This machine knows only the
operations that torch's files use. It reads within the bytes that are there, takes a bounded number of steps, and its
only callables are the functions in `pickle_names`.
"""

import struct
from collections.abc import Callable

from repvgg.checkpoints.errors import damaged, shown, unsafe
from repvgg.checkpoints.torch_format.pickle_names import (
    ALLOWED_NAMES,
    AllowedName,
    InertRecord,
    NumberType,
    StorageTable,
    set_item,
)

# The largest RepVGG needs a hundredth of these bytes, and with an optimizer beside it a tenth of these steps. At the
# limit, a file takes about 2 s and 300 MB.
MAX_PICKLE_BYTES = 32 * 2**20
MAX_STEPS = 500_000
_MAX_LINE = 1024


def load_restricted(data: memoryview, start: int = 0, storages: StorageTable | None = None) -> tuple[object, int]:
    """Reads the pickle that begins at byte `start` of `data`.

    Args:
        data: The bytes; they may go on after the pickle.
        start: Where the pickle begins.
        storages: Collects the storages it refers to; None if it should refer to none.

    Returns:
        The object, made of Python's numbers, text and containers, `TensorReference`, `StorageReference`,
        `InertRecord` and `AllowedName` only (it may share parts and contain itself), and the position after it.

    Raises:
        UnsafeCheckpointError: It names something that is not in `ALLOWED_NAMES`, or asks for an object's own code.
        CheckpointError: It is damaged, longer than `MAX_PICKLE_BYTES` or takes more than `MAX_STEPS` steps.
    """
    window = data[: start + MAX_PICKLE_BYTES]
    machine = _Machine(window, start, storages, cut=len(window) < len(data))
    return machine.run(), machine.position


class _Machine:
    def __init__(self, data: memoryview, start: int, storages: StorageTable | None, *, cut: bool) -> None:
        self.data = data
        self.position = start
        self.cut = cut
        self.storages = storages
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.floor = 0  # of the stack, since the last mark: operations may not reach below it
        self.memo: dict[int, object] = {}

    def run(self) -> object:
        for _ in range(MAX_STEPS):
            code = self.take(1)[0]
            if code == _STOP:
                if len(self.stack) != 1 or self.marks:
                    raise damaged("The pickle ends with parts left over.")
                return self.stack[0]
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise _refused(code)
            operation(self)
        raise damaged(f"The pickle takes more than {MAX_STEPS:,} steps; checkpoints need far fewer.")

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            if self.cut:
                raise damaged(f"The pickle is longer than {MAX_PICKLE_BYTES:,} bytes; checkpoints need far less.")
            raise damaged("The pickle breaks off: it claims more bytes than there are.")
        part = self.data[self.position : end]
        self.position = end
        return part

    def line(self) -> str:
        found = bytes(self.data[self.position : self.position + _MAX_LINE]).find(b"\n")
        if found < 0:
            raise damaged(f"The pickle has a name that does not end within {_MAX_LINE} bytes.")
        return _text(self.take(found + 1)[:-1])

    def pop(self) -> object:
        if len(self.stack) <= self.floor:
            raise damaged("The pickle takes something that it has not made.")
        return self.stack.pop()

    def top(self) -> object:
        if len(self.stack) <= self.floor:
            raise damaged("The pickle takes something that it has not made.")
        return self.stack[-1]

    def mark(self) -> None:
        self.floor = len(self.stack)
        self.marks.append(self.floor)

    def pop_to_mark(self) -> list[object]:
        if not self.marks:
            raise damaged("The pickle ends a group that it has not begun.")
        begin = self.marks.pop()
        items = self.stack[begin:]
        del self.stack[begin:]
        self.floor = self.marks[-1] if self.marks else 0
        return items

    def push_tuple(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(items)))

    def push_integer(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.take(1)[0]), "little", signed=True))

    def push_text(self, length_bytes: int) -> None:
        self.stack.append(_text(self.take(int.from_bytes(self.take(length_bytes), "little"))))

    def push_bytes(self, length_bytes: int) -> None:
        self.stack.append(bytes(self.take(int.from_bytes(self.take(length_bytes), "little"))))

    def get(self, index_bytes: int) -> None:
        index = int.from_bytes(self.take(index_bytes), "little")
        if index not in self.memo:
            raise damaged(f"The pickle recalls entry {index}, which it has not stored.")
        self.stack.append(self.memo[index])

    def put(self, index_bytes: int) -> None:
        self.memo[int.from_bytes(self.take(index_bytes), "little")] = self.top()

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.top()

    def append(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, list):
            raise damaged(f"The pickle appends to a {type(target).__name__}.")
        target.extend(items)

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if len(items) % 2:
            raise damaged("The pickle gives a dictionary key without a value.")
        entries = target.fields if isinstance(target, InertRecord) else target
        if not isinstance(entries, dict):
            raise damaged(f"The pickle sets an entry of a {type(target).__name__}.")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(entries, key, value)

    def global_name(self, module: str, name: str) -> None:
        allowed = ALLOWED_NAMES.get((module, name))
        if allowed is None:
            raise unsafe(f"The pickle asks for '{shown(f'{module}.{name}')}'.")
        self.stack.append(allowed)

    def stack_global(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(name, str):
            raise unsafe("The pickle asks for something whose name is not text.")
        self.global_name(module, name)

    def instance(self) -> None:
        # INST fetches and calls in one step. torch never writes it, so even an allowed name is refused here.
        module, name = self.line(), self.line()
        raise unsafe(f"The pickle asks for an instance of '{shown(f'{module}.{name}')}'.")

    def call(self) -> None:
        args, function = self.pop(), self.pop()
        if not isinstance(function, AllowedName) or function.make is None:
            name = function.name if isinstance(function, AllowedName) else type(function).__name__
            raise unsafe(f"The pickle calls '{name}', which is not a function it may call.")
        if not isinstance(args, tuple):
            raise damaged(f"The pickle calls {function.name} with a {type(args).__name__} in place of arguments.")
        self.stack.append(function.make(args))

    def build(self) -> None:
        """Gives the topmost object its state: without running any `__setstate__`, and without copying."""
        state, target = self.pop(), self.top()
        if isinstance(target, InertRecord) and isinstance(state, dict):
            # A CfgNode is a dictionary; its attributes are only its library's bookkeeping.
            if target.kind == "argparse.Namespace":
                target.fields = state
        elif isinstance(target, NumberType) and isinstance(state, tuple) and len(state) >= 2:
            if state[1] not in ("<", ">", "|", "="):
                raise damaged("The pickle gives a number an unknown byte order.")
            target.order = str(state[1])
        elif not isinstance(target, dict) or not isinstance(state, dict):
            # torch hangs version notes (`_metadata`) on a state dict; they are of no use here and stay unread.
            raise unsafe(f"The pickle sets the inner state of a {type(target).__name__}.")

    def persistent(self) -> None:
        if self.storages is None:
            raise damaged("The pickle refers to a storage where none can be.")
        self.stack.append(self.storages.refer(self.pop()))

    def frame(self) -> None:
        length = int.from_bytes(self.take(8), "little")
        if length > len(self.data) - self.position:
            raise damaged("The pickle claims a frame that is longer than the file.")


def _text(part: memoryview) -> str:
    try:
        return str(part, "utf-8")
    except UnicodeDecodeError:
        raise damaged("The pickle holds text that is not UTF-8.") from None


def _refused(code: int) -> Exception:
    called = {ord("o"): "OBJ", 0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4", 0x92: "NEWOBJ_EX"}
    if code in called:
        return unsafe(f"The pickle asks for an object by the operation {called[code]}.")
    return damaged(f"The pickle has the operation {code:#04x}, which torch does not write.")


_STOP = ord(".")
_OPERATIONS: dict[int, Callable[[_Machine], None]] = {
    0x80: lambda m: _require_protocol(m.take(1)[0]),
    0x95: _Machine.frame,
    ord("N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord("J"): lambda m: m.stack.append(int.from_bytes(m.take(4), "little", signed=True)),
    ord("K"): lambda m: m.stack.append(m.take(1)[0]),
    ord("M"): lambda m: m.stack.append(int.from_bytes(m.take(2), "little")),
    0x8A: _Machine.push_integer,
    ord("G"): lambda m: m.stack.append(struct.unpack(">d", m.take(8))[0]),
    ord("X"): lambda m: m.push_text(4),
    0x8C: lambda m: m.push_text(1),
    0x8D: lambda m: m.push_text(8),
    ord("T"): lambda m: m.push_text(4),  # text of Python 2, which torch of that time wrote in ASCII
    ord("U"): lambda m: m.push_text(1),
    ord("B"): lambda m: m.push_bytes(4),
    ord("C"): lambda m: m.push_bytes(1),
    0x8E: lambda m: m.push_bytes(8),
    ord("("): _Machine.mark,
    ord(")"): lambda m: m.stack.append(()),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("t"): lambda m: m.stack.append(tuple(m.pop_to_mark())),
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.pop_to_mark()),
    0x8F: lambda m: m.stack.append([]),  # a set stays a list, see pickle_names
    0x90: lambda m: m.append(m.pop_to_mark()),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.pop_to_mark()),
    ord("h"): lambda m: m.get(1),
    ord("j"): lambda m: m.get(4),
    ord("q"): lambda m: m.put(1),
    ord("r"): lambda m: m.put(4),
    0x94: _Machine.memoize,
    ord("c"): lambda m: m.global_name(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("i"): _Machine.instance,
    ord("R"): _Machine.call,
    0x81: _Machine.call,
    ord("b"): _Machine.build,
    ord("Q"): _Machine.persistent,
}


def _require_protocol(protocol: int) -> None:
    if not 2 <= protocol <= 5:
        raise damaged(f"The pickle is of protocol {protocol}; 2 to 5 was expected.")
