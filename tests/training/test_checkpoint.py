"""Checkpoints: whole or not at all, and one damaged file costs one interval."""

from pathlib import Path

import numpy as np
import pytest

from repvgg.base.errors import CheckpointError
from repvgg.training import state as checkpoint
from repvgg.training.state import Progress, load_state, save_state, saved_steps


def state(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "model/kernel": generator.standard_normal((3, 3, 2, 4)).astype(np.float32),
        "optimizer/iteration": np.asarray(seed, np.int64),
        "metric/total": generator.standard_normal(()),
    }


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_state(folder, state(step), Progress(step, [{"epoch": 1.0, "loss": 0.5}], 1, 0.75))


def nobody_listens(message: str) -> None:
    raise AssertionError(message)


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    save(tmp_path, 5)
    loaded = load_state(tmp_path, nobody_listens)
    assert loaded is not None
    tensors, progress = loaded
    assert progress == Progress(5, [{"epoch": 1.0, "loss": 0.5}], 1, 0.75)
    for name, expected in state(5).items():
        np.testing.assert_array_equal(tensors[name], expected, strict=True)


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 2, 4, 10, 120)
    assert saved_steps(tmp_path) == [10, 120]
    assert len(list(tmp_path.iterdir())) == 2


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_state(tmp_path, nobody_listens) is None
    assert load_state(tmp_path / "nothing", nobody_listens) is None


@pytest.mark.parametrize("damage", ["truncated", "emptied", "one bit", "other content"])
def test_a_damaged_file_is_told_of_and_the_one_before_is_taken(damage: str, tmp_path: Path) -> None:
    save(tmp_path, 7, 9)
    path = max(tmp_path.iterdir())
    whole = path.read_bytes()
    changed = {
        "truncated": whole[: len(whole) // 2],
        "emptied": b"",
        "one bit": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:],
        "other content": b"PK\x03\x04 something else",
    }[damage]
    path.write_bytes(changed)
    told: list[str] = []

    loaded = load_state(tmp_path, told.append)

    assert loaded is not None
    assert loaded[1].step == 7
    np.testing.assert_array_equal(loaded[0]["model/kernel"], state(7)["model/kernel"])
    assert len(told) == 1
    assert "is damaged" in told[0]
    assert path.name in told[0]


def test_all_damaged(tmp_path: Path) -> None:
    save(tmp_path, 7, 9)
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"Every checkpoint in .* is damaged"):
        load_state(tmp_path, lambda message: None)


def test_full_disk_leaves_the_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 3)

    def no_room(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", no_room)
    with pytest.raises(CheckpointError, match=r"No space left on device.* last good state is of step 3.*--resume"):
        save_state(tmp_path, state(4), Progress(4))
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003.safetensors"]


def test_state_of_another_network(tmp_path: Path) -> None:
    import keras

    kernel = keras.Variable(np.zeros((2, 2)), name="kernel")
    with pytest.raises(CheckpointError, match=r"lacks 1 of this one's variables \(kernel\) and has 1 others \(other\)"):
        checkpoint.write_variables({"kernel": kernel}, {"other": np.zeros(3)})
    with pytest.raises(CheckpointError, match=r"'kernel' has the shape \(3,\), and \(2, 2\) is needed"):
        checkpoint.write_variables({"kernel": kernel}, {"kernel": np.zeros(3)})
