"""A whole run: what it leaves, and that nothing which happens to it is lost."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from small_run import BATCH, CLASSES, EPOCHS, make_images, small_model, small_settings

import repvgg
from helpers import assert_same_values, values_of
from repvgg.base import progress
from repvgg.base.errors import InputError, InterruptedTrainingError, OutputExistsError, TrainingDivergedError
from repvgg.training.state import load_state, saved_steps
from sampling import sampled

STEPS = EPOCHS * (36 // BATCH)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted; what it printed, where there is no terminal, lies beside it."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "SILENCE", 0.05)
        repvgg.train(data, small_model(), output=output, out=Console(file=stream, width=200), **small_settings())
    (output.parent / "told.txt").write_text(stream.getvalue())
    return output


def start(data: Path, output: Path, *arguments: str) -> "subprocess.Popen[str]":
    """The same run in a process of its own."""
    script = Path(__file__).parent / "small_run.py"
    return subprocess.Popen(
        [sys.executable, str(script), str(data), str(output), *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def steps(process: "subprocess.Popen[str]") -> Iterator[int]:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            yield int(line.split()[1])


def history(output: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((output / "history.csv").read_text().splitlines()))


def final_weights(output: Path) -> list[np.ndarray]:
    return values_of(repvgg.load_model(output / "last.keras"))


def test_what_a_run_leaves(data: Path, finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.json", "data.json", "history.csv", "README.md", "training.png",
        "best.keras", "last.keras", "deploy.keras", "checkpoints",
    }  # fmt: skip
    rows = history(finished)
    assert [int(row["epoch"]) for row in rows] == list(range(1, EPOCHS + 1))
    assert all(np.isfinite(float(value)) for row in rows for value in row.values())
    settings = json.loads((finished / "run.json").read_text())
    assert settings["settings"]["recipe"]["epochs"] == EPOCHS
    assert settings["about"]["versions"]["backend"] == "tensorflow"
    with Image.open(finished / "training.png") as picture:
        assert picture.size[0] > 800
    best, deployed = (repvgg.load_model(finished / name) for name in ("best.keras", "deploy.keras"))
    metadata = repvgg.get_metadata(deployed)
    assert metadata.class_names == CLASSES
    assert metadata.preprocessing == repvgg.Preprocessing(crop=32, resize=37)
    assert metadata.verification is not None
    assert metadata.verification["validation"]["same_class"] == 12
    assert repvgg.verify(best, deployed).passed


def test_it_is_never_silent(finished: Path) -> None:
    """A line an epoch; and before the first and after the last, what is going on and for how long."""
    told = (finished.parent / "told.txt").read_text()
    epochs = [line for line in told.splitlines() if line.startswith("epoch ")]
    assert [int(line.split()[1]) for line in epochs] == list(range(1, EPOCHS + 1))
    before, after = told.split(epochs[0])[0], told.split(epochs[-1])[1]
    assert "training: 0 of 16 steps, 0 %, compiling, 0:00:" in before
    assert "Converting the best network, of epoch" in after
    assert "comparing both forms on 12 validation images" in after
    assert "converting: 0:00:" in after
    assert "saving and drawing: 0:00:" in after


def test_it_learns(finished: Path) -> None:
    """The strongest colour of an image is its class, so a network that trains at all gets most of them."""
    rows = history(finished)
    assert max(float(row["val_accuracy"]) for row in rows) >= 0.75


@pytest.mark.parametrize("seed", sampled(range(3), [0]))
def test_killed_anywhere_it_ends_bit_for_bit_the_same(
    seed: int, data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 a moment after a random step: while it computes, validates or writes a checkpoint."""
    generator = random.Random(seed)
    last, moment = generator.randrange(1, STEPS), generator.uniform(0, 0.15)
    process = start(data, tmp_path / "run", "save_steps=2")
    for step in steps(process):
        if step == last:
            break
    time.sleep(moment)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    done: list[int] = []
    after_each_step(monkeypatch, lambda keeper: done.append(keeper.progress.step))
    repvgg.train(data, small_model(), output=tmp_path / "run", resume=True, **small_settings(save_steps=2))

    # At most the two steps of an interval are done again.
    assert done[0] > last - 2
    assert done[-1] == STEPS
    assert_same_values(final_weights(finished), final_weights(tmp_path / "run"))
    first, second = (load_state(folder / "checkpoints", print) for folder in (finished, tmp_path / "run"))
    assert first is not None
    assert second is not None
    assert first[0].keys() == second[0].keys()
    for name, tensor in first[0].items():
        np.testing.assert_array_equal(tensor, second[0][name], err_msg=name)
    assert [without_time(row) for row in first[1].history] == [without_time(row) for row in second[1].history]


def without_time(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name != "seconds"}


def after_each_step(monkeypatch: pytest.MonkeyPatch, call: Callable[[Any], None]) -> Callable[[], None]:
    """Lets something happen after each step of all runs, until what is returned is called."""
    from repvgg.training.callbacks import StateKeeper

    original = StateKeeper.on_train_batch_end

    def end(self: Any, batch: int, logs: Any = None) -> None:
        original(self, batch, logs)
        call(self)

    monkeypatch.setattr(StateKeeper, "on_train_batch_end", end)
    return lambda: monkeypatch.setattr(StateKeeper, "on_train_batch_end", original)


def interrupted_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Lets the run stop as Ctrl-C would, after the given step."""

    def stop(keeper: Any) -> None:
        if keeper.progress.step == step:
            keeper.save()
            raise InterruptedTrainingError(step, 2)

    return after_each_step(monkeypatch, stop)


def test_sigterm_saves_and_says_so(data: Path, tmp_path: Path) -> None:
    process = start(data, tmp_path / "run", "save_steps=100")
    for step in steps(process):
        if step == 6:
            process.send_signal(signal.SIGTERM)
            break
    _, errors = process.communicate(timeout=600)
    assert "InterruptedTrainingError: Stopped at step" in errors
    assert "--resume" in errors
    assert saved_steps(tmp_path / "run" / "checkpoints")[-1] >= 6


@pytest.mark.full
def test_a_damaged_checkpoint_costs_one_interval(
    data: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = interrupted_at(7, monkeypatch)
    with pytest.raises(InterruptedTrainingError):
        repvgg.train(data, small_model(), output=tmp_path / "run", **small_settings())
    go_on()
    newest = max((tmp_path / "run" / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:1000])
    text = io.StringIO()
    out = Console(file=text, width=200)

    repvgg.train(data, small_model(), output=tmp_path / "run", resume=True, out=out, **small_settings())

    told = text.getvalue().replace("\n", "")
    assert f"'{newest}' is damaged" in told
    assert "Going on from step 6 of 16" in told
    assert_same_values(final_weights(finished), final_weights(tmp_path / "run"))


@pytest.mark.full
def test_a_recipe_of_everything_goes_on_bit_for_bit(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"ema": 0.9, "accumulate": 2, "clip_norm": 1.0, "mixup": 0.4, "cutmix": 1.0}
    settings = small_settings(epochs=2, **changes)
    settings["recipe"] = settings["recipe"].changed(epochs=2, **changes)
    for name in ("epochs", *changes):
        settings.pop(name)
    whole = repvgg.train(data, small_model(), output=tmp_path / "whole", **settings)
    go_on = interrupted_at(3, monkeypatch)
    with pytest.raises(InterruptedTrainingError):
        repvgg.train(data, small_model(), output=tmp_path / "run", **settings)
    go_on()
    resumed = repvgg.train(data, small_model(), output=tmp_path / "run", resume=True, **settings)
    assert_same_values(final_weights(tmp_path / "whole"), final_weights(tmp_path / "run"))
    assert_same_values(values_of(whole.model), values_of(resumed.model))


def test_divergence_stops_with_advice_and_keeps_the_last_good_state(data: Path, tmp_path: Path) -> None:
    settings = small_settings()
    settings["recipe"] = settings["recipe"].changed(learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(TrainingDivergedError, match=r"Training diverged: at step \d+ .*--learning-rate.*--clip-norm"):
        repvgg.train(data, small_model(), output=tmp_path / "run", **settings)
    state = load_state(tmp_path / "run" / "checkpoints", print)
    if state is not None:
        assert all(np.isfinite(array).all() for array in state[0].values() if array.dtype.kind == "f")


def test_refusals(data: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputExistsError, match=r"--resume goes on with it, --force begins anew"):
        repvgg.train(data, small_model(), output=finished, **small_settings())
    other = small_settings()
    other["recipe"] = other["recipe"].changed(momentum=0.8)
    with pytest.raises(InputError, match=r"begun with other settings: momentum: 0\.9 -> 0\.8\. Leave them out"):
        repvgg.train(data, small_model(), output=finished, resume=True, **other)
    wrong = repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=4, input_shape=(32, 32, 3))
    with pytest.raises(InputError, match="has 4 outputs, and the images are in 3 classes"):
        repvgg.train(data, wrong, output=tmp_path / "run", **small_settings())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputExistsError):
        repvgg.train(data, small_model(), output=tmp_path / "mine", **small_settings())
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_images_that_changed_end_the_run_before_it_goes_on(data: Path, tmp_path: Path) -> None:
    import shutil

    own = shutil.copytree(data, tmp_path / "data")
    settings = small_settings()
    settings["recipe"] = settings["recipe"].changed(epochs=1)
    repvgg.train(own, small_model(), output=tmp_path / "run", **settings)
    (own / "train" / "red" / "0.jpg").unlink()
    with pytest.raises(InputError, match="The images have changed since the run"):
        repvgg.train(own, small_model(), output=tmp_path / "run", resume=True, **settings)


@pytest.mark.full
def test_a_finished_run_goes_on_longer_and_says_what_becomes_of_the_rate(data: Path, tmp_path: Path) -> None:
    settings = small_settings()
    recipe = settings.pop("recipe").changed(epochs=1)
    repvgg.train(data, small_model(), recipe=recipe, output=tmp_path / "run", **settings)
    text = io.StringIO()
    out = Console(file=text, width=300)

    # All but the network and what is to change is in the run's folder.
    result = repvgg.train(model=small_model(), output=tmp_path / "run", resume=True, epochs=2, out=out)

    rate = 1.6 * BATCH / 256 / 2
    told = text.getvalue()
    assert (
        f"epochs: 1 -> 2. From here the learning rate follows the schedule of 2 epochs: at step 4 it is {rate:.3g}"
        in told
    )
    assert ", and was 0." in told
    assert "Going on from step 4 of 8." in told
    assert [row["epoch"] for row in result.history] == [1, 2]
    kept = json.loads((tmp_path / "run" / "run.json").read_text())
    assert kept["settings"]["recipe"]["epochs"] == 2
    assert len(kept["about"]["went_on_with"]) == 1
    with pytest.raises(InputError, match=r"is past 1 epochs: 2 are done"):
        repvgg.train(model=small_model(), output=tmp_path / "run", resume=True, epochs=1)
