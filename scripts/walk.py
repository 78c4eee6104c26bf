"""Runs every command, and looks up every public name, of the repvgg that is installed.

Each works, or says which extra it needs. Run it by a Python whose environment has the wheel, from another folder:

    /tmp/environment/bin/python scripts/walk.py
"""

import contextlib
import io
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import typer

import repvgg
from repvgg.base.errors import MissingDependencyError
from repvgg.cli import app, main

EXTRAS = set(metadata("repvgg").get_all("Provides-Extra") or ())
ADVICE = re.compile(r"pip\s+install\s+'repvgg\[(\w+)\]'")

# By command, in the order in which they build on each other; no command may be without a line.
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("list",),
    ("inspect", "small.keras"),
    ("inspect", "model.onnx"),
    ("fetch", "RepVGG-A0"),
    ("demo", "--epochs", "1"),
    ("shard", "flowers", "shards"),
    ("train", "flowers", "--size", "32", "--epochs", "1", "--batch", "4", "--no-tensorboard"),
    ("convert", "small.keras", "deploy.keras"),
    ("convert", "small.keras", "small.safetensors"),
    ("verify", "small.keras", "deploy.keras", "--picture", "blocks.png"),
    ("evaluate", "deploy.keras", "flowers/val", "--picture", "report.png"),
    ("predict", "deploy.keras", "flowers/val", "--format", "csv"),
    ("predict", "model.onnx", "flowers/val"),
    ("predict", "model.xml", "flowers/val"),
    ("predict", "model.tflite", "flowers/val"),
    ("benchmark", "deploy.keras", "--rounds", "1"),
    ("report", "deploy.keras"),
    ("export", "deploy.keras", "saved"),
    ("export", "deploy.keras", "written.onnx"),
    ("export", "deploy.keras", "written.xml"),
    ("export", "deploy.keras", "written.tflite"),
    ("export", "deploy.keras", "written.repvgg"),
    ("export", "deploy.keras", "written.o", "--size", "32"),
    ("export", "deploy.keras", "int8.onnx", "--precision", "int8", "--calibration", "flowers/train"),
    ("tune", "written.repvgg"),
    ("serve", "deploy.keras", "--port", "0"),
)

CALLS: dict[str, Callable[[Any], object]] = {
    "compile": lambda model: repvgg.compile(model, image_size=32),
    "create_model": lambda _: repvgg.create_model("RepVGG-A0", weights="imagenet"),
    "export": lambda model: repvgg.export(model, "called.onnx"),
    "load_runner": lambda _: repvgg.load_runner("model.onnx"),
}
"""Public names that need an extra when they are called."""


def prepare() -> None:
    """Images, a small network, and files that only have the names of exported ones."""
    from PIL import Image

    for part in ("train", "val"):
        for place, colour in enumerate(("red", "blue")):
            folder = Path("flowers", part, colour)
            folder.mkdir(parents=True)
            for index in range(4):
                shade = (200, 20 * index, 0) if place == 0 else (0, 20 * index, 200)
                Image.new("RGB", (40 + index, 36), shade).save(folder / f"{index}.png")
    model = repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=2, input_shape=(32, 32, 3))
    repvgg.set_metadata(model, class_names=("blue", "red"), preprocessing=repvgg.Preprocessing(crop=32, resize=36))
    repvgg.save_model(model, "small.keras")
    for name in ("model.onnx", "model.xml", "model.bin", "model.tflite"):
        Path(name).write_bytes(b"no model, which nobody sees who has no runtime")


def call(arguments: Sequence[str]) -> tuple[int, str]:
    """The exit status of a command, and what it printed."""
    printed = io.StringIO()
    sys.argv = ["repvgg", *arguments]
    status = 0
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        except Exception:  # noqa: BLE001 - it is what is looked for
            traceback.print_exc()
            status = 1
    return status, printed.getvalue()


def serve(arguments: Sequence[str]) -> tuple[int, str]:
    """A server is asked to end as soon as it is there."""
    command = [sys.executable, "-m", "repvgg", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # noqa: S101
        lines = [process.stdout.readline()]
        process.send_signal(signal.SIGTERM)
        lines.append(process.stdout.read())
    return process.returncode, "".join(lines)


def verdict(status: int, printed: str) -> str | None:
    """What to say of a command; None if it neither worked nor named an extra."""
    if status == 0:
        return "works"
    advice = ADVICE.search(printed)
    return f"needs repvgg[{advice[1]}]" if status == 2 and advice and advice[1] in EXTRAS else None


def walk() -> list[str]:
    """Goes through everything; what was wrong."""
    names = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    known = {line[0] for line in COMMANDS}
    wrong = [f"The command {name} is not walked through. Add it to COMMANDS." for name in sorted(names - known)]
    for arguments in COMMANDS:
        if arguments[0] not in names:
            wrong.append(f"There is no command {arguments[0]} any more.")
            continue
        status, printed = (serve if arguments[0] == "serve" else call)(arguments)
        said = verdict(status, printed)
        print(f"repvgg {' '.join(arguments)}: {said or f'exit status {status}'}", flush=True)
        if said is None:
            wrong.append(f"repvgg {' '.join(arguments)}: exit status {status}\n{printed}")
    wrong += [f"repvgg.{name} leads nowhere." for name in repvgg.__all__ if getattr(repvgg, name, None) is None]
    model = repvgg.load_model("deploy.keras")
    for name, use in CALLS.items():
        try:
            use(model)
            said = "works"
        except MissingDependencyError as error:
            said = verdict(2, str(error)) or ""
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            said = ""
            wrong.append(f"repvgg.{name}: {type(error).__name__}: {error}")
        print(f"repvgg.{name}(...): {said}", flush=True)
        if not said:
            wrong.append(f"repvgg.{name} neither worked nor named an extra.")
    return wrong


if __name__ == "__main__":
    print(f"repvgg {repvgg.__version__} on Python {sys.version.split()[0]}: {repvgg.__file__}")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        prepare()
        found = walk()
    print("\n".join(found) or "Every command and every public name works, or names the extra that it needs.")
    sys.exit(bool(found))
