"""`--device` and `--workers`."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from command_line import Run, runner
from PIL import Image

import repvgg
from repvgg.base.errors import InputError
from repvgg.cli.device import VISIBLE, choose_device, require_gpu
from repvgg.data import reading
from repvgg.data import scan as scanning


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """One that is as before after the test, whatever a command does to it."""
    for name in (*VISIBLE, "JAX_PLATFORMS", "KERAS_TORCH_DEVICE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    model = repvgg.RepVGG([1, 1, 1, 1], [0.25] * 4, num_classes=2, input_shape=(32, 32, 3))
    repvgg.set_metadata(model, class_names=("a", "b"), preprocessing=repvgg.Preprocessing(crop=32, resize=32))
    repvgg.save_model(model, folder / "model.keras")
    (folder / "model.onnx").write_bytes(b"not looked at")
    for name in ("a", "b"):
        (folder / "val" / name).mkdir(parents=True)
        for colour in ("red", "blue"):
            Image.new("RGB", (40, 40), colour).save(folder / "val" / name / f"{colour}.png")
    return folder


@pytest.mark.parametrize(
    ("device", "before", "after"),
    [
        ("cpu", None, "-1"),
        ("gpu", None, "0"),
        ("gpu:1", None, "1"),
        ("gpu:1", "3,5", "5"),
    ],
)
def test_what_backends_are_told(environment: pytest.MonkeyPatch, device: str, before: str | None, after: str) -> None:
    if before is not None:
        environment.setenv("CUDA_VISIBLE_DEVICES", before)
    choose_device(device)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == after
    assert (os.environ.get("KERAS_TORCH_DEVICE") == "cpu") == (device == "cpu")


def test_more_than_there_are(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(InputError, match=r"shows 2 \(3, 5\)"):
        choose_device("gpu:2")


@pytest.mark.backends
def test_without_a_gpu_asking_for_one_is_a_mistake() -> None:
    require_gpu("cpu", keras)
    with pytest.raises(InputError, match=r"--device is gpu:1, and \w+ sees no such GPU"):
        require_gpu("gpu:1", keras)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "model.keras", "val", "--device", "tpu"], "--device is cpu, gpu, or gpu:1"),
        (["predict", "model.onnx", "val", "--device", "gpu"], "'model.onnx' runs on the CPU here"),
        (["evaluate", "model.keras", "val", "--device", "gpu"], "sees no such GPU"),
        (["train", "val", "--device", "gpu:x"], "--device is cpu, gpu, or gpu:1"),
    ],
)
@pytest.mark.usefixtures("environment")
def test_mistakes(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    result = run(*arguments)
    assert result.status == 2
    assert message in result.sentence


@pytest.mark.usefixtures("environment")
def test_workers_reach_the_readers(run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Pool(reading.ThreadPoolExecutor):
        def __init__(self, workers: int, **options: str) -> None:
            asked.append(workers)
            super().__init__(workers, **options)

    monkeypatch.setattr(reading, "ThreadPoolExecutor", Pool)
    monkeypatch.setattr(scanning, "ThreadPoolExecutor", Pool)
    options = ("--workers", 3, "--device", "cpu")
    assert run("evaluate", folder / "model.keras", folder / "val", *options).status == 0
    assert run("predict", folder / "model.keras", folder / "val", *options).status == 0
    assert asked == [3, 3]
    assert run("shard", folder / "val", tmp_path / "shards", "--holdout", 0.5, "--workers", 2).status == 0
    assert asked[2:] == [2, 2]


def test_workers_change_no_batch() -> None:
    from repvgg.training.feeding import read_by

    tf = pytest.importorskip("tensorflow")
    batches = tf.data.Dataset.range(20).map(lambda x: x * x, num_parallel_calls=4).batch(4)
    limited = read_by(batches, 1)
    assert limited.options().threading.private_threadpool_size == 1
    for one, other in zip(batches, limited, strict=True):
        np.testing.assert_array_equal(one, other)
    assert read_by(batches, None) is batches
