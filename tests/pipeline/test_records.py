"""Shards: what goes in comes out, a damaged one is named, and nothing else is overwritten."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from hostile_images import write_all
from repvgg.base.errors import FileError, InputError, OutputExistsError
from repvgg.base.metadata import Preprocessing
from repvgg.cli import main
from repvgg.data import load_image
from repvgg.data.augmentation import Augmentation
from repvgg.data.folder import find_labelled_images, find_splits
from repvgg.data.scan import ScanReport, scan
from repvgg.pipeline import DataShard, RecordSource, record_source, training_batches, write_records

SMALL = Preprocessing(crop=8, resize=8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files of every kind there is, the broken ones as well."""
    root = tmp_path_factory.mktemp("images")
    write_all(root, 4)
    return root


@pytest.fixture(scope="module")
def reports(folder: Path) -> dict[str, ScanReport]:
    return {name: scan(images) for name, images in zip(("train", "val"), find_splits(folder, 0.5), strict=True)}


@pytest.fixture(scope="module")
def shards(reports: dict[str, ScanReport], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("records") / "shards"
    written = write_records(reports, output, shards=3)
    assert {name: (part.images, part.shards) for name, part in written.items()} == {
        name: (len(report.images), 3) for name, report in reports.items()
    }
    return output


def examples(shards: Path, split: str) -> list[Any]:
    files = sorted(map(str, shards.glob(f"{split}-*.tfrecord")))
    return [tf.train.Example.FromString(record) for record in tf.data.TFRecordDataset(files).as_numpy_iterator()]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
def test_what_goes_in_comes_out(shards: Path, reports: dict[str, ScanReport]) -> None:
    """JPEG files byte for byte, the others pixel for pixel, each once."""
    for split, report in reports.items():
        plain = dict(zip((path.name for path in report.images.paths), report.plain, strict=True))
        paths = {path.name: path for path in report.images.paths}
        labels = dict(zip(paths, report.images.labels, strict=True))
        found = []
        for example in examples(shards, split):
            feature = example.features.feature
            (name,), (content,) = feature["image/filename"].bytes_list.value, feature["image/encoded"].bytes_list.value
            path = paths[name.decode()]
            found.append(path)
            assert list(feature["image/class/label"].int64_list.value) == [labels[path.name]]
            if plain[path.name]:
                assert content == path.read_bytes()
                assert list(feature["image/format"].bytes_list.value) == [b"jpeg"]
            else:
                # A fourth channel is kept for networks that read one.
                np.testing.assert_array_equal(tf.io.decode_png(content)[..., :3], np.asarray(load_image(path)))
        assert sorted(found) == sorted(paths.values())
        assert (found == list(report.images.paths)) == (split == "val"), "train is shuffled, val is not"


def test_opened(shards: Path, reports: dict[str, ScanReport]) -> None:
    assert RecordSource.recognizes(shards)
    assert not RecordSource.recognizes(shards.parent)
    sources = RecordSource.open(shards)
    assert set(sources) == {"train", "val"}
    for split, source in sources.items():
        assert len(source) == len(reports[split].images)
        assert source.class_names == reports[split].images.class_names
        stored = [
            example.features.feature["image/class/label"].int64_list.value[0] for example in examples(shards, split)
        ]
        np.testing.assert_array_equal(source.labels, np.int32(stored), strict=True)
    np.testing.assert_array_equal(sources["val"].plain, reports["val"].plain)


def test_windows_and_turns_keep_the_contract(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An epoch longer than a window, begun in the middle, and in parts."""
    monkeypatch.setattr(record_source, "WINDOW", 7)
    monkeypatch.setattr(record_source, "BLOCK", 2)
    source = RecordSource.open(shards)["train"]
    assert len(source) > 2 * 7

    def batches(first: int, last: int, shard: DataShard | None = None) -> list[np.ndarray]:
        found = training_batches(
            source, SMALL, Augmentation(), batch_size=6, seed=2, first_step=first, last_step=last, shard=shard
        )
        return [images.numpy() for images, _ in found]

    whole = batches(0, 16)
    np.testing.assert_array_equal(whole[5:16], batches(5, 16))
    parts = [batches(3, 9, DataShard(index, 3)) for index in range(3)]
    np.testing.assert_array_equal(whole[3:9], np.concatenate(parts, axis=1))


@pytest.fixture
def copy(shards: Path, tmp_path: Path) -> Path:
    for path in shards.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_truncated_and_missing_shards_are_named(copy: Path) -> None:
    shard = copy / "train-00001-of-00003.tfrecord"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(
        FileError, match=r"train-00001-of-00003.tfrecord' has .* bytes and was written with .* truncated"
    ):
        RecordSource.open(copy)
    shard.unlink()
    with pytest.raises(FileError, match=r"train-00001-of-00003.tfrecord' does not exist"):
        RecordSource.open(copy)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    shard.write_bytes(damaged)
    source = RecordSource.open(copy)["train"]
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        list(training_batches(source, SMALL, Augmentation(), batch_size=4, seed=0, first_step=0, last_step=7))


def test_an_index_that_promises_more_than_there_is(copy: Path) -> None:
    index = json.loads((copy / "records.json").read_text())
    split = index["splits"]["train"]
    split["labels"] += [0] * 20
    split["shards"][0]["images"] += 20
    (copy / "records.json").write_text(json.dumps(index))
    source = RecordSource.open(copy)["train"]
    steps = len(source) // 4
    with pytest.raises(tf.errors.FailedPreconditionError, match="was expected to contain"):
        list(training_batches(source, SMALL, Augmentation(), batch_size=4, seed=0, first_step=0, last_step=steps))


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"repvgg_records": 1, "class_names": [], "splits": {"train": {}}}']
)
def test_damaged_index(content: str, tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text(content)
    with pytest.raises(FileError, match=r"records.json' cannot be read: .*Write the shards again"):
        RecordSource.open(tmp_path)


def test_other_indexes(copy: Path) -> None:
    index = json.loads((copy / "records.json").read_text())
    (copy / "records.json").write_text(json.dumps({**index, "repvgg_records": 2}))
    with pytest.raises(FileError, match="newer version"):
        RecordSource.open(copy)
    index["splits"]["val"]["labels"][0] = 9
    (copy / "records.json").write_text(json.dumps(index))
    with pytest.raises(FileError, match="contradicts itself"):
        RecordSource.open(copy)
    with pytest.raises(FileError, match=r"contains no shards: it has no 'records.json'\. `repvgg shard` writes them"):
        RecordSource.open(copy.parent)


def test_only_shards_are_replaced(reports: dict[str, ScanReport], tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "photo.jpg").write_bytes(b"x")
    with pytest.raises(OutputExistsError, match="already exists"):
        write_records(reports, output)
    with pytest.raises(OutputExistsError, match="is not a folder of shards, so it is not replaced"):
        write_records(reports, output, force=True)
    assert (output / "photo.jpg").read_bytes() == b"x"
    (output / "photo.jpg").unlink()
    assert write_records(reports, output, force=True)["train"].shards == 1
    write_records(reports, output, shard_size=5000, force=True)
    assert len(list(output.glob("train-*"))) > 3


def test_nothing_is_left_of_a_failure(reports: dict[str, ScanReport], tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_records(reports, tmp_path / "out", advance=stop)
    assert list(tmp_path.iterdir()) == []


def test_numbers_that_make_no_shards(reports: dict[str, ScanReport], folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"number or size above 0\. Received: 0"):
        write_records(reports, tmp_path / "out", shards=0)
    with pytest.raises(InputError, match=r"number or size above 0\. Received: -1"):
        write_records(reports, tmp_path / "out", shard_size=-1)
    other = scan(find_labelled_images(folder, ("class1", "class0")))
    with pytest.raises(InputError, match="same classes"):
        write_records({**reports, "val": other}, tmp_path / "out")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys, "argv", ["repvgg", "shard", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    code = stopped.value.code
    return code if isinstance(code, int) else 0


def test_on_the_command_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "shards"
    assert run(monkeypatch, folder, output, "--shards", 2, "--holdout", 0.5) == 0
    printed = capsys.readouterr().out
    assert "images are broken and left out:" in printed
    assert "Written: train, " in printed
    assert "images in 2 shards" in printed
    assert len(RecordSource.open(output)["val"].shards) == 2
    assert run(monkeypatch, folder, output) == 2
    assert "already exists" in capsys.readouterr().err
    assert run(monkeypatch, folder, tmp_path / "strict", "--strict") == 2
    assert "images are broken" in capsys.readouterr().err
    assert run(monkeypatch, folder, tmp_path / "both", "--shards", 2, "--shard-size", 3) == 2
    assert "exclude each other" in capsys.readouterr().err
