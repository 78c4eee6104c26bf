"""Ctrl-C in real commands, from the first import to the last file."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image
from small_run import make_images

import repvgg
from helpers import trained_like
from repvgg.training.state import saved_steps
from sampling import sampled


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, its ONNX file, and more images than are run in a moment."""
    folder = tmp_path_factory.mktemp("stopping")
    model = trained_like(repvgg.RepVGG([1, 1, 1, 1], [0.25] * 4, num_classes=3, input_shape=(32, 32, 3)))
    repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(crop=32, resize=36))
    repvgg.save_model(model, folder / "model.keras")
    repvgg.export(model, folder / "model.onnx")
    (folder / "images").mkdir()
    Image.new("RGB", (600, 600), "red").save(folder / "images" / "0.png")
    for number in range(1, 400):
        os.link(folder / "images" / "0.png", folder / "images" / f"{number}.png")
    return folder


class Stopped:
    """What a command did after Ctrl-C at the first moment for which `moment` holds."""

    def __init__(self, place: Path, arguments: list[str], moment: Callable[[psutil.Process], bool]) -> None:
        command = [sys.executable, *arguments]
        with (place / "log").open("w+b") as log:
            child = subprocess.Popen(command, cwd=place, stdout=log, stderr=subprocess.STDOUT)
            process = psutil.Process(child.pid)
            while child.poll() is None and not moment(process):
                time.sleep(0.005)
            assert child.poll() is None, "It had ended before the moment came."
            before = sum(process.cpu_times()[:2])
            child.send_signal(signal.SIGINT)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        self.status = child.returncode
        # Of its own processor time: how long a second is depends on what else the machine does.
        self.seconds = usage.ru_utime + usage.ru_stime - before
        self.told = (place / "log").read_text()
        (place / "log").unlink()


def listens(process: psutil.Process) -> bool:
    return process.num_threads() > 1


def has_run_for(seconds: float) -> Callable[[psutil.Process], bool]:
    return lambda process: sum(process.cpu_times()[:2]) > seconds


def has_mapped(name: str) -> Callable[[psutil.Process], bool]:
    return lambda process: name in Path(f"/proc/{process.pid}/maps").read_text()


MOMENTS = {
    "at once": listens,
    "Keras begins": has_run_for(0.6),
    "TensorFlow's library": has_mapped("libtensorflow_framework"),
    "TensorFlow's modules": has_mapped("_pywrap_py_utils"),
    "all but there": has_run_for(4),
}


@pytest.mark.parametrize("moment", sampled(list(MOMENTS), ["at once", "TensorFlow's library", "TensorFlow's modules"]))
def test_while_it_starts(moment: str, folder: Path, tmp_path: Path) -> None:
    command = ["-m", "repvgg", "predict", str(folder / "model.keras"), str(folder / "images")]
    stopped = Stopped(tmp_path, command, MOMENTS[moment])
    assert (stopped.status, stopped.told[-9:]) == (130, "Stopped.\n")
    assert "Traceback" not in stopped.told
    assert "oneDNN" not in stopped.told
    assert stopped.seconds < 1


def test_while_it_writes(folder: Path, tmp_path: Path) -> None:
    command = ["-m", "repvgg", "predict", str(folder / "model.onnx"), str(folder / "images"), "--batch", "1"]
    stopped = Stopped(
        tmp_path, [*command, "--output", "new/found.csv"], lambda process: bool(list(tmp_path.glob("new/.found.*/*")))
    )
    assert (stopped.status, stopped.told) == (130, "Stopped.\n")
    assert list(tmp_path.iterdir()) == []
    assert stopped.seconds < 1


def begun(folder: Path) -> bool:
    return (folder / "run" / "run.json").exists()


def in_an_epoch(folder: Path) -> bool:
    return "step 6\n" in (folder / "log").read_text()


@pytest.mark.parametrize("moment", sampled([begun, in_an_epoch], [in_an_epoch]))
def test_while_it_trains(moment: Callable[[Path], bool], tmp_path: Path) -> None:
    """Before the first step there is nothing to save; later, the step and its state come first."""
    data = make_images(tmp_path / "data")
    script = Path(__file__).parents[1] / "training" / "small_run.py"
    command = [str(script), str(data), "run", "--command-line", "save_steps=100"]

    stopped = Stopped(tmp_path, command, lambda process: moment(tmp_path))

    assert stopped.status == 130
    assert "Traceback" not in stopped.told
    steps = saved_steps(tmp_path / "run" / "checkpoints")
    if moment is begun:
        assert stopped.told.endswith("Stopped.\n")
        assert stopped.seconds < 1
        assert steps == []
    else:
        assert "Stopping after this step, when its state is saved. Ctrl-C again stops at once.\n" in stopped.told
        assert f"Stopped at step {steps[-1]}; its state is saved." in stopped.told
        assert steps[-1] >= 6
