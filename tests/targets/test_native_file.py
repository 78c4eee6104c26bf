"""`.repvgg` files: what goes in comes out, and nothing a file says is believed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from helpers import random_images, relative_error
from repvgg.base.errors import FileError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.engine import Convolution, Dense, GlobalAverage, Plan, SqueezeExcite
from repvgg.engine.reference import compute
from repvgg.engine.tune import NOTE, Tuned
from repvgg.targets.native import tuned as tuned_module
from repvgg.targets.native.compiling import compile as compile_file
from repvgg.targets.native.file import PlanFile, read_plan, write_plan
from repvgg.targets.native.run import KEPT, NativeRunner
from repvgg.targets.native.tuned import add_tuned

pytest.importorskip("llvmlite")


def small_plan() -> Plan:
    rng = np.random.default_rng(0)

    def array(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32) / 4

    attention = SqueezeExcite(array(8, 2), array(2), array(2, 8), array(8), position="after_activation")
    return Plan(
        "small",
        3,
        (
            Convolution("stem", "images", array(3, 3, 3, 8), array(8), strides=(2, 2), attention=attention),
            Convolution("body", "stem", array(3, 3, 4, 8), array(8), groups=2, dilations=(2, 2), pads=(2, 2, 2, 2)),
            GlobalAverage("mean", "body"),
            Dense("classifier", "mean", array(8, 5), array(5)),
        ),
        {"features": "body", "logits": "classifier"},
    )


METADATA = Metadata(class_names=("ant", "käfer"), preprocessing=Preprocessing(crop=16, resize=20), source="a test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.repvgg"
    write_plan(file, PlanFile(small_plan(), METADATA, batch=None, image_size=(16, 18)))
    return file


def test_what_goes_in_comes_out(path: Path) -> None:
    found = read_plan(path)
    assert (found.metadata, found.batch, found.image_size) == (METADATA, None, (16, 18))
    assert str(found.plan) == str(small_plan())
    for (name, array), (expected_name, expected) in zip(found.plan.arrays(), small_plan().arrays(), strict=True):
        assert name == expected_name
        np.testing.assert_array_equal(array, expected)
    again = path.with_name("again.repvgg")
    write_plan(again, found)
    assert again.read_bytes() == path.read_bytes()


def test_arrays_in_half_the_bits(path: Path) -> None:
    half = path.with_name("half.repvgg")
    write_plan(half, read_plan(path), "float16")
    for (_, array), (_, expected) in zip(read_plan(half).plan.arrays(), small_plan().arrays(), strict=True):
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected.astype(np.float16))


def tampered(path: Path, change: Callable[[dict[str, Any], dict[str, np.ndarray], dict[str, Any]], None]) -> Path:
    """A file whose plan, arrays or header were changed."""
    with safe_open(path, framework="numpy") as opened:
        header = json.loads(opened.metadata()["repvgg"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - it is not a mapping
    change(header.get("plan"), arrays, header)
    save_file(arrays, path, metadata={"repvgg": json.dumps(header)})
    return path


HOSTILE: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "another format": (lambda plan, arrays, header: header.update(format="onnx"), r"its format is 'onnx'"),
    "no plan": (lambda plan, arrays, header: header.pop("plan"), r"it lacks 'plan'"),
    "no layers": (lambda plan, arrays, header: plan.pop("layers"), r"it lacks 'layers'"),
    "a text for layers": (lambda plan, arrays, header: plan.update(layers="x" * 9), r"not a list of at most"),
    "too many layers": (lambda plan, arrays, header: plan.update(layers=[{}] * 10_001), r"at most 10000"),
    "a number for a layer": (lambda plan, arrays, header: plan["layers"].append(7), r"a layer in its header is a int"),
    "an unknown kind": (
        lambda plan, arrays, header: plan["layers"][2].update(kind="exec"),
        r"'mean' is of the unknown kind 'exec'",
    ),
    "a missing array": (lambda plan, arrays, header: arrays.pop("stem/bias"), r"it lacks 'stem/bias'"),
    "an array too many": (
        lambda plan, arrays, header: arrays.update(more=np.zeros(3, np.float32)),
        r"no layer uses its tensor 'more'",
    ),
    "an array of integers": (
        lambda plan, arrays, header: arrays.update({"stem/bias": np.zeros(8, np.int64)}),
        r"'stem/bias' is of type I64, and F32 or F16",
    ),
    "an array of another shape": (
        lambda plan, arrays, header: arrays.update({"body/kernel": np.zeros((3, 3, 8, 8), np.float32)}),
        r"'body': the kernel has shape",
    ),
    "a stride that is huge": (
        lambda plan, arrays, header: plan["layers"][0].update(strides=[2**40, 1]),
        r"'strides' must be a whole number",
    ),
    "a stride that is true": (
        lambda plan, arrays, header: plan["layers"][0].update(strides=[True, 1]),
        r"'strides' must be a whole number",
    ),
    "a measured choice without threads": (
        lambda plan, arrays, header: header.update(tuned=[{"batch": 1, "image_size": [16, 18]}]),
        r"it lacks 'threads'",
    ),
    "a measured choice for any batch": (
        lambda plan, arrays, header: header.update(
            tuned=[{"batch": None, "image_size": [16, 18], "threads": 1, "choices": {}, "processor": ""}]
        ),
        r"a measured choice in its header is for batch None",
    ),
    "a number for measured choices": (
        lambda plan, arrays, header: header.update(tuned=7),
        r"its measured choices are not a list of at most 100",
    ),
    "a group that is a text": (
        lambda plan, arrays, header: plan["layers"][1].update(groups="2"),
        r"'groups' must be a whole number",
    ),
    "negative padding": (
        lambda plan, arrays, header: plan["layers"][1].update(pads=[-1, 0, 0, 0]),
        r"'pads' must be a whole number",
    ),
    "padding without a length": (lambda plan, arrays, header: plan["layers"][1].update(pads=3), r"int.* not iterable"),
    "a loop": (
        lambda plan, arrays, header: plan["layers"][0].update(source="body"),
        r"'stem' reads 'body', which no earlier layer gives",
    ),
    "an output that is none": (
        lambda plan, arrays, header: plan.update(outputs={"logits": "images"}),
        r"'logits' of 'small' is 'images'",
    ),
    "a batch below one": (
        lambda plan, arrays, header: header.update(batch=0),
        r"its batch is 0",
    ),
    "an image size of one side": (
        lambda plan, arrays, header: header.update(image_size=[3]),
        r"its image size \[3\]",
    ),
    "a plan that is a list": (lambda plan, arrays, header: header.update(plan=[]), r"the plan in its header is a list"),
    "metadata of another maker": (lambda plan, arrays, header: header.update(metadata="{}"), "metadata cannot be read"),
    "metadata that are not text": (lambda plan, arrays, header: header.update(metadata=5), r"is 5, and a text was"),
}


@pytest.mark.parametrize("kind", list(HOSTILE))
def test_hostile_files(kind: str, path: Path) -> None:
    change, message = HOSTILE[kind]
    with pytest.raises(FileError, match=message):
        read_plan(tampered(path, change))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, (2**62).to_bytes(8, "little") + b"{}" * 40])
def test_files_of_another_kind(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"small\.repvgg' is not a network for the native engine, or is damaged"):
        read_plan(path)


@pytest.mark.parametrize("text", ["", "[]", "[" * 100_000, "{}"])
def test_headers_of_another_kind(text: str, path: Path) -> None:
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={"repvgg": text})
    with pytest.raises(FileError, match="is not a network for the native engine, or is damaged"):
        read_plan(path)


def test_a_file_cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FileError, match="is not a network for the native engine, or is damaged"):
        read_plan(path)


def test_parts_are_filled_up_and_split_and_few_engines_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repvgg.targets.native.run.LARGEST_BATCH", 4)
    runner = NativeRunner(replace(read_plan(path), image_size=None), "small", threads=1)
    images = random_images((7, 16, 18, 3))
    expected = compute(runner.plan, images)
    found = runner.outputs(images)
    assert list(found) == ["features", "logits"]
    for name, values in found.items():
        # Seven images are four and three, and the three are filled up to four. Another order of summation, no more.
        assert relative_error(expected[name], values) < 1e-5
    assert list(runner._engines) == [(4, 16, 18)]
    assert runner(images[:0]).shape == (0, *expected["features"].shape[1:])
    for width in range(8, 8 + KEPT + 1):
        runner(images[:1, :, :width])
    assert len(runner._engines) == KEPT
    np.testing.assert_array_equal(runner.outputs(images)["logits"], found["logits"])


def test_threads_that_share_a_runner(path: Path) -> None:
    runner = NativeRunner(read_plan(path), "small", threads=2)
    images = [random_images((count, 16, 18, 3)) for count in (1, 2, 3, 5)]
    expected = [runner.outputs(batch)["logits"] for batch in images]
    wrong: list[int] = []

    def work(index: int) -> None:
        found = [runner.outputs(images[index])["logits"] for _ in range(20)]
        wrong.extend(index for logits in found if relative_error(expected[index], logits) > 1e-5)

    threads = [Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def choice(threads: int = 2, **ways: str) -> Tuned:
    return Tuned("znver9 avx2", 1, (16, 18), threads, ways)


def test_measured_choices_are_added_to_a_file_whose_arrays_stay(path: Path) -> None:
    before = read_plan(path)
    add_tuned(path, choice(stem="one way"))
    add_tuned(path, choice(threads=1, stem="käfer"))
    add_tuned(path, choice(stem="another way"))
    found = read_plan(path)
    assert found.tuned == (choice(threads=1, stem="käfer"), choice(stem="another way"))
    assert (found.metadata, found.batch, found.image_size) == (before.metadata, before.batch, before.image_size)
    for (_, array), (_, expected) in zip(found.plan.arrays(), before.plan.arrays(), strict=True):
        np.testing.assert_array_equal(array, expected)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    again = path.with_name("again.repvgg")
    write_plan(again, found)
    assert read_plan(again).tuned == found.tuned


def test_only_so_many_choices_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_module, "MAX_TUNED", 2)
    for threads in (1, 2, 3):
        add_tuned(path, choice(threads=threads))
    assert [entry.threads for entry in read_plan(path).tuned] == [2, 3]


def test_a_damaged_file_stays_as_it_is(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])
    before = path.read_bytes()
    with pytest.raises(FileError, match="is damaged"):
        add_tuned(path, choice())
    assert path.read_bytes() == before


def test_tuning_a_file_keeps_the_choice_and_loading_uses_it(path: Path) -> None:
    with compile_file(path, threads=1, tune=True, tune_seconds=0) as engine:
        measured = str(engine.schedule)
    (entry,) = read_plan(path).tuned
    assert entry == Tuned.of(engine.schedule)
    assert (entry.batch, entry.image_size, entry.threads) == (1, (16, 18), 1)
    with compile_file(path, threads=1) as engine:
        assert str(engine.schedule) == measured
        assert NOTE in engine.schedule.notes
    runner = NativeRunner.load(path, threads=1)
    runner(np.zeros((1, 16, 18, 3), np.float32))
    (compiled,) = runner._engines.values()
    assert str(compiled.schedule) == measured


def test_the_command_line_tunes_and_inspect_tells(path: Path) -> None:
    from typer.testing import CliRunner

    from repvgg.cli.commands import app

    told = CliRunner().invoke(app, ["tune", str(path), "--threads", "1", "--seconds", "0"])
    assert told.exit_code == 0, told.output
    assert "stem: 3->8" in told.output
    told = CliRunner().invoke(app, ["inspect", str(path)])
    assert "1 x 16 x 18 on 1 thread" in told.output
