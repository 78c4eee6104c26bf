"""Runs a command with runtimes that take this machine for an x86 processor without AVX-512 and VNNI.

    .venv/bin/python scripts/without_vnni .venv/bin/python -m pytest tests/quantization

oneDNN can be told by a variable which instructions to use; ONNX Runtime and XNNPACK ask the processor. So copies of
ONNX Runtime, OpenVINO and LiteRT are made in build/ in which asking (the instruction `cpuid`) traps, and cpuid.c
answers for a poorer processor. Their own kernels for such processors then run here, at full speed. The copies are made
once, in a minute; Linux on x86-64 with cc, objdump and readelf.
"""

import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent.parent / "build" / "without_vnni"
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ai_edge_litert": "ai-edge-litert"}

CPUID, TRAP = b"\x0f\xa2", b"\x0f\x0b"

ENVIRONMENT = {
    # What this package itself goes by.
    "REPVGG_PROCESSOR": "avx2",
    # TensorFlow switches oneDNN on by itself only where there is VNNI.
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
}


def main() -> None:
    """Makes the copies that are missing, and becomes the command."""
    command = sys.argv[1:]
    if not command:
        sys.exit(__doc__)
    library = BUILD / "cpuid.so"
    if not library.exists() or library.stat().st_mtime < (HERE / "cpuid.c").stat().st_mtime:
        BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", library, HERE / "cpuid.c"], check=True)
    folders = [
        copied(package, f"{package}-{version(name)}") for package, name in PACKAGES.items() if find_spec(package)
    ]
    paths = [*map(str, folders), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths), "LD_PRELOAD": str(library)}
    os.execvpe(command[0], command, environment)


def copied(package: str, label: str) -> Path:
    """The folder in which the changed copy of an installed package lies."""
    folder = BUILD / label
    if folder.exists():
        return folder
    print(f"Making a copy of {package} that asks no processor ...", file=sys.stderr, flush=True)
    spec = find_spec(package)
    assert spec is not None  # noqa: S101 - the caller asked
    temporary = folder.with_name(f"{label}.{os.getpid()}")
    shutil.copytree(
        Path(spec.origin or "").parent,
        temporary / package,
        symlinks=True,
        ignore=shutil.ignore_patterns("__pycache__", "*[gG]pu*.so*", "*npu*.so*"),
    )
    for file in temporary.rglob("*.so*"):
        if not file.is_symlink():
            _set_traps(file)
    temporary.rename(folder)
    return folder


def _set_traps(file: Path) -> None:
    listing = subprocess.run(["objdump", "-d", "--no-show-raw-insn", file], capture_output=True, text=True, check=False)
    addresses = [int(found, 16) for found in re.findall(r"^\s*([0-9a-f]+):\tcpuid\b", listing.stdout, re.MULTILINE)]
    if not addresses:
        return
    headers = subprocess.run(["readelf", "-lW", file], capture_output=True, text=True, check=True).stdout
    segments = [
        [int(number, 16) for number in line.split()[1:6] if number.startswith("0x")]
        for line in headers.splitlines()
        if line.strip().startswith("LOAD")
    ]
    content = bytearray(file.read_bytes())
    for address in addresses:
        (place,) = (
            address - start + offset for offset, start, _, size, _ in segments if start <= address < start + size
        )
        if content[place : place + 2] != CPUID:
            sys.exit(f"{file}: no cpuid at {address:#x}.")
        content[place : place + 2] = TRAP
    file.write_bytes(content)


if __name__ == "__main__":
    main()
