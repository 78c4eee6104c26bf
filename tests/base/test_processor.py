"""What kind of processor this machine is taken for."""

from pathlib import Path

import pytest

from repvgg.base import processor
from repvgg.base.errors import InputError
from repvgg.base.processor import get_processor, overflows


@pytest.mark.parametrize(
    ("flags", "machine", "expected"),
    [
        ("fpu sse4_2 avx2 avx512f avx512bw", "x86_64", True),
        ("fpu avx2 avx512f avx512_vnni", "x86_64", False),
        ("fpu avx2 avx_vnni", "AMD64", False),
        # Asked for by name, not found in the name of another.
        ("fpu avx2 novnni", "x86_64", True),
        ("", "aarch64", False),
    ],
)
def test_detection(flags: str, machine: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REPVGG_PROCESSOR", raising=False)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: some vnni machine\nflags\t\t: {flags}\n")
    monkeypatch.setattr(processor, "CPU_DESCRIPTION", tmp_path / "cpuinfo")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    assert overflows() is expected
    assert get_processor("this") == ("portable" if expected else "vnni")
    # Where the processor cannot be looked at, caution.
    monkeypatch.setattr(processor, "CPU_DESCRIPTION", tmp_path / "nothing")
    assert overflows() is (machine != "aarch64")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [("REPVGG_PROCESSOR", "avx2", True), ("ONEDNN_MAX_CPU_ISA", "avx2", True), ("ONEDNN_MAX_CPU_ISA", "ALL", False)],
)
def test_imitation(name: str, value: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REPVGG_PROCESSOR", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    monkeypatch.setenv(name, value)
    assert overflows() is expected


def test_an_imitation_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPVGG_PROCESSOR", "pentium")
    with pytest.raises(InputError, match=r"REPVGG_PROCESSOR is 'avx2' or not set\. Received: 'pentium'"):
        overflows()
