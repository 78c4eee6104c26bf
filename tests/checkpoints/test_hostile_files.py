"""Damaged, lying and malicious checkpoint files: a clear error, within bounds, and nothing runs."""

import itertools
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import crafted
import hostile
import numpy as np
import pytest

from repvgg.base.errors import CheckpointError, UnsafeCheckpointError
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.torch_format.reader import read_torch
from sampling import sampled

_NAMES = [case.name for case in hostile.corpus(Path("marker"))]
_GOOD = {"zip": crafted.torch_zip(), "legacy": crafted.legacy(), "safetensors": crafted.GOOD_SAFETENSORS}
ENOUGH = 30
"""Seconds of computing, whatever else the machine does meanwhile. A file that is not refused at once takes hours."""


@pytest.fixture(scope="module")
def marker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("marker") / "ran"


@pytest.fixture(scope="module")
def cases(marker: Path) -> dict[str, hostile.Case]:
    return {case.name: case for case in hostile.corpus(marker)}


@pytest.mark.parametrize("kind", _GOOD)
def test_the_files_that_the_hostile_ones_are_made_from_are_good(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "good.pth"
    path.write_bytes(_GOOD[kind])
    tensors = read_tensors(path).tensors
    np.testing.assert_array_equal(tensors["weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    if kind != "safetensors":
        np.testing.assert_array_equal(tensors["bias"], [0, 2, 4])


def test_the_marking_pickle_would_run(tmp_path: Path) -> None:
    # Without this, "nothing ran" could hold because the payload is broken.
    marker = tmp_path / "ran"
    pickle.loads(crafted.marking_pickle(marker))
    assert marker.exists()


@pytest.mark.parametrize("name", _NAMES)
def test_hostile_file_is_refused(name: str, cases: dict[str, hostile.Case], marker: Path, tmp_path: Path) -> None:
    case = cases[name]
    path = tmp_path / "hostile.pth"
    path.write_bytes(case.content)
    begin = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        read_tensors(path)
    assert time.process_time() - begin < ENOUGH
    assert type(caught.value) is case.error
    message = str(caught.value)
    assert any(words in message for words in case.says.split("|")), message
    assert str(path) in message
    assert message.isascii()
    assert len(message) < 600
    assert not marker.exists()


def test_corpus_names_are_unique() -> None:
    assert len(set(_NAMES)) == len(_NAMES)


@pytest.mark.parametrize("kind", _GOOD)
def test_every_truncation_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "cut.pth"
    for length in range(len(_GOOD[kind])):
        path.write_bytes(_GOOD[kind][:length])
        with pytest.raises(CheckpointError):
            read_tensors(path)


def _mutated(content: bytes, dice: random.Random) -> bytes:
    raw = bytearray(content)
    for _ in range(dice.choice((1, 1, 2, 4))):
        place = dice.randrange(len(raw))
        match dice.randrange(6):
            case 0:
                raw[place] ^= 1 << dice.randrange(8)
            case 1:
                raw[place] = dice.choice(b"\x00\x01\x7f\x80\xff" + b"()]}tqhRbcQX.\x81\x85\x93\x95")
            case 2:
                del raw[place : place + dice.randrange(1, 9)]
            case 3:
                raw[place:place] = raw[(other := dice.randrange(len(raw))) : other + dice.randrange(1, 40)]
            case 4:
                raw[place : place + 4] = dice.choice((b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4)))
            case _:
                raw[place : place + 8] = dice.randrange(2**64).to_bytes(8, "little")
        raw = raw or bytearray(b"\x80")
    return bytes(raw)


_FUZZED: dict[str, Callable[[random.Random], bytes]] = {
    "zip": lambda dice: _mutated(crafted.torch_zip(), dice),
    # Repacked, so that no checksum stands between the mutation and the pickle machine.
    "pickle in a zip": lambda dice: crafted.torch_zip(_mutated(crafted.GOOD_PICKLE, dice)),
    "legacy": lambda dice: _mutated(_GOOD["legacy"], dice),
    "safetensors": lambda dice: _mutated(_GOOD["safetensors"], dice),
}


def _arrays(tree: object) -> Iterator[np.ndarray]:
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, dict | list | tuple):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _arrays(value)


@pytest.mark.parametrize(
    ("kind", "seed"), sampled(itertools.product(_FUZZED, range(5)), [(kind, 0) for kind in _FUZZED])
)
def test_mutated_files_are_read_or_refused(tmp_path: Path, kind: str, seed: int) -> None:
    dice, mutations = random.Random(seed), 500
    path = tmp_path / "mutated.pth"
    read = 0
    for number in range(mutations):
        content = _FUZZED[kind](dice)
        path.unlink(missing_ok=True)  # a file that is mapped must not be cut short
        path.write_bytes(content)
        try:
            tree = read_tensors(path).tensors if kind == "safetensors" else read_torch(path)
        except CheckpointError:
            continue
        except BaseException as error:
            raise AssertionError(f"{kind}, mutation {number}: {content!r}") from error
        read += 1
        assert sum(len(array.tobytes()) for array in _arrays(tree)) <= 8 * len(content) + 2**24
    # Some mutations do no harm; were none or nearly all read, the fuzzer would miss the point.
    assert 0 < read < 0.6 * mutations


_MEASURE = """
import resource, sys, time
from pathlib import Path
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.base.errors import CheckpointError
slowest = 0.0
for path in sorted(Path(sys.argv[1]).iterdir()):
    begin = time.process_time()
    try:
        read_tensors(path)
    except CheckpointError:
        pass
    slowest = max(slowest, time.process_time() - begin)
status = Path("/proc/self/status")
if status.exists():
    # A child's ru_maxrss begins at its parent's peak; this one is its own.
    peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(slowest, peak)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource module")
def test_the_worst_files_stay_within_a_gibibyte_and_seconds(tmp_path: Path) -> None:
    for name, content in hostile.exhausting():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", _MEASURE, tmp_path], capture_output=True, text=True, check=True)
    slowest, peak = (float(number) for number in done.stdout.split())
    assert slowest < ENOUGH
    assert peak < 2**30


def test_a_far_memo_entry_takes_no_memory(tmp_path: Path) -> None:
    # Python's own unpickler allocates 64 GB for this file.
    path = tmp_path / "memo.pth"
    path.write_bytes(crafted.torch_zip(crafted.PROTO + b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff\x86."))
    assert read_torch(path) == (None, None)


def test_the_name_that_was_asked_for_is_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(crafted.torch_zip(crafted.PROTO + b"crepvgg_official\nRepVGG\n)\x81."))
    with pytest.raises(UnsafeCheckpointError, match=r"repvgg_official\.RepVGG.*has run.*state_dict"):
        read_torch(path)
