"""What is settled before a framework starts, each in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import nullcontext

import pytest

from repvgg.base import startup
from repvgg.base.startup import ONEDNN, OPENMP


def told(program: str, environment: Mapping[str, str | None] = {}) -> str:
    """What `program` prints; None takes a variable away."""
    variables = {**os.environ, ONEDNN: None, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-2000:]
    return process.stdout


@pytest.mark.parametrize(("given", "expected"), [(None, "1"), ("0", "0"), ("1", "1")])
def test_onednn_is_on_unless_somebody_has_chosen(given: str | None, expected: str) -> None:
    program = f"import os, sys, repvgg; print(os.environ['{ONEDNN}'], 'tensorflow' in sys.modules)"
    assert told(program, {ONEDNN: given}).split() == [expected, "False"]


MESSAGE = (
    "TensorFlow was imported before repvgg and runs without oneDNN, which makes training two to three times "
    f"slower on this processor: import repvgg first, or set {ONEDNN}=1 before Python starts."
)


def test_openmp_waits_asleep_unless_somebody_has_chosen() -> None:
    program = f"import os, repvgg; print(os.environ['{OPENMP}'])"
    assert told(program, {OPENMP: None}).strip() == "PASSIVE"
    assert told(program, {OPENMP: "ACTIVE"}).strip() == "ACTIVE"


LATE = f"""
import os, warnings
# As on a processor without AVX-512 VNNI, where nobody has set the variable.
os.environ['{ONEDNN}'] = '0'
import tensorflow
del os.environ['{ONEDNN}']
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    from repvgg.training.speed import prepare_machine
    prepare_machine()
    prepare_machine()
print(*(warning.message for warning in caught if "repvgg" in str(warning.message)), sep="\\n")
"""


def test_training_says_once_that_tensorflow_came_up_without_onednn() -> None:
    assert told(LATE, {"KERAS_BACKEND": "tensorflow"}).splitlines() == [MESSAGE]


@pytest.mark.parametrize(
    ("loaded", "chosen", "has_onednn", "warns"),
    [(True, None, False, True), (True, None, True, False), (True, "0", False, False), (False, None, False, False)],
)
def test_only_who_can_mend_it_is_told(
    loaded: bool, chosen: str | None, has_onednn: bool, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(startup, "_tensorflow_was_first", False)
    monkeypatch.setattr(sys, "platform", "linux")
    # Set first, so that it is put back whatever happens to it.
    monkeypatch.setenv(ONEDNN, chosen or "")
    if chosen is None:
        monkeypatch.delenv(ONEDNN)
    if loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", sys)
    else:
        monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    startup._warn_once.cache_clear()
    startup.set_environment()
    with pytest.warns(UserWarning, match="imported before repvgg") if warns else nullcontext():
        startup.warn_without_onednn(lambda: has_onednn)


FAULTS = """
import resource, threading
import repvgg.base.startup
{before}

def step():
    for size in (10, 50):  # MiB; glibc maps blocks above 32 anew each time, whatever its threshold
        b"x" * (size << 20)

def work():
    step()
    begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begin)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="is about glibc")
def test_memory_of_a_step_is_kept_for_the_next() -> None:
    pages = (60 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert int(told(FAULTS.format(before=""))) > pages / 2
    assert int(told(FAULTS.format(before="repvgg.base.startup.keep_memory()"))) < pages / 50


def test_memory_settings_of_others_are_left_alone() -> None:
    faults = told(FAULTS.format(before="repvgg.base.startup.keep_memory()"), {"MALLOC_TOP_PAD_": "131072"})
    assert int(faults) > 1000
