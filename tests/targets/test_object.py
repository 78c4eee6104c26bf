"""Object files: called from C, from several threads, and refused where they cannot be proved."""

import shutil
import subprocess
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from exported import CLASSES, deployed, small, write
from helpers import infer, random_images, relative_error
from repvgg.base.errors import InputError, UnknownNameError
from repvgg.engine import isa_for
from repvgg.engine.isa import host_isa
from repvgg.engine.library import Status
from repvgg.exporting import export
from repvgg.targets.object.run import ObjectRunner

pytest.importorskip("llvmlite")

EXAMPLE = Path(__file__).parents[2] / "examples" / "serving" / "native_library.c"
COMPILER = shutil.which("cc")

# Tiles, and another order of summation, against Keras in float32.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `model.o` and `model.h`, for two images of odd sides."""
    path = tmp_path_factory.mktemp("object")
    write(deployed("attention before"), path, "object", batch=2, image_size=(33, 38), threads=3)
    return path


@pytest.mark.skipif(COMPILER is None, reason="there is no C compiler here: apt-get install gcc")
def test_a_program_in_c(folder: Path, tmp_path: Path) -> None:
    program = tmp_path / "classify"
    command = [COMPILER, "-O2", "-Wall", "-Wextra", "-Werror", "-I", folder, EXAMPLE, folder / "model.o"]
    subprocess.run([*map(str, command), "-lpthread", "-o", str(program)], check=True)
    images = random_images((6, 33, 38, 3))
    finished = subprocess.run([program], input=images.tobytes(), capture_output=True, check=True, timeout=120)
    found = np.array(finished.stdout.split(), np.float64).reshape(6, 3)
    assert relative_error(infer(deployed("attention before"), images), found) < TOLERANCE
    images[1, 5, 7, 2] = np.nan
    refused = subprocess.run([program], input=images.tobytes(), capture_output=True, check=False, timeout=120)
    assert (refused.returncode, refused.stdout) == (Status.NOT_FINITE, b"")


def test_any_number_of_threads_gives_the_same_bits(folder: Path) -> None:
    images = random_images((2, 33, 38, 3))
    expected = ObjectRunner.load(folder / "model.o", threads=1)(images)
    for threads in (2, 3):
        np.testing.assert_array_equal(ObjectRunner.load(folder / "model.o", threads)(images), expected)
    for threads in (-1, 4):
        with pytest.raises(InputError, match=r"returned BAD_THREADS"):
            ObjectRunner.load(folder / "model.o", threads)(images)


def test_calls_at_the_same_time_have_a_workspace_each(folder: Path) -> None:
    batches = [random_images((2, 33, 38, 3), seed=seed) for seed in range(3)]
    runners = [ObjectRunner.load(folder / "model.o", threads=2) for _ in batches]
    expected = [runner(images) for runner, images in zip(runners, batches, strict=True)]
    results: dict[int, list[Any]] = {}

    def work(index: int) -> None:
        results[index] = [runners[index](batches[index]) for _ in range(10)]

    threads = [Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, found in results.items():
        for logits in found:
            np.testing.assert_array_equal(logits, expected[index])


def test_the_header_tells_everything(folder: Path) -> None:
    text = (folder / "model.h").read_text(encoding="utf-8")
    for line in (
        "#define REPVGG_BATCH 2",
        "#define REPVGG_HEIGHT 33",
        "#define REPVGG_WIDTH 38",
        "#define REPVGG_IMAGE_FLOATS 7524",
        "#define REPVGG_OUTPUT_FLOATS 6",
        "#define REPVGG_MAX_THREADS 3",
        "static const float repvgg_mean[3] = {0.2f, 0.5f, 0.7f};",
        '    "a \\"bee\\" & <more>",',
        '    "käfer"',
    ):
        assert line in text
    assert ObjectRunner.load(folder / "model.o").metadata.class_names == CLASSES


def test_feature_maps_one_after_the_other(tmp_path: Path) -> None:
    import repvgg

    model = repvgg.reparameterize(small(num_classes=None))
    write(model, tmp_path, "object", image_size=64)
    images = random_images((1, 64, 64, 3))
    expected, found = infer(model, images), ObjectRunner.load(tmp_path / "model.o").outputs(images)
    assert list(found) == ["stage0", "stage1", "stage2", "stage3", "stage4"]
    for stage, values in found.items():
        assert relative_error(expected[stage], values) < TOLERANCE


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, InputError, r"made for images of one size, and '.*' takes any\. Say which: image_size=224"),
        ({"image_size": 64, "with_preprocessing": True}, InputError, r"takes normalized images; mean and standard"),
        ({"image_size": 64, "threads": 0}, InputError, r"`threads` must be at least 1"),
        ({"image_size": 64, "processor": "z80"}, UnknownNameError, r"There is no processor called 'z80'"),
        ({"image_size": 64, "precision": "float16"}, InputError, r"'object' is written in float32; 'float16' was"),
        ({"image_size": 64, "precision": "int8"}, InputError, r"INT8 is written for"),
    ],
)
def test_requests_that_are_refused(options: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        export(deployed("plain"), tmp_path / "model.o", "object", **options)
    with pytest.raises(InputError, match=r"`threads` is for the format 'object'"):
        export(deployed("plain"), tmp_path / "model.onnx", threads=2)
    assert list(tmp_path.iterdir()) == []


def test_code_that_does_not_run_here_is_not_written(tmp_path: Path) -> None:
    foreign = "armv8-a" if host_isa().is_x86 else "x86-64-v3"
    assert isa_for(foreign).is_x86 != host_isa().is_x86
    with pytest.raises(
        InputError, match=rf"Code for '{foreign}' does not run on this machine, so it could not be proved"
    ):
        export(deployed("plain"), tmp_path / "model.o", "object", image_size=64, processor=foreign)
    assert list(tmp_path.iterdir()) == []
