"""Shards as a source of batches."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from repvgg.base.errors import FileError
from repvgg.pipeline.decode import with_channels
from repvgg.pipeline.records import FIELDS, INDEX, VERSION
from repvgg.pipeline.sampling_order import SHARDS, WINDOWS, Plan, permutation, plainly

READERS = 8
"""Shards that are read by turns, so that neighbours come from different ones."""

BLOCK = 16
WINDOW = 2048
"""Images that are shuffled among each other, as undecoded bytes."""


@dataclass(frozen=True)
class ShardFile:
    """A file of records, as the index has it."""

    path: Path
    images: int
    size: int


@dataclass(frozen=True, eq=False)
class RecordSource:
    """One split of a folder of shards, which `records.write_records` wrote.

    An epoch takes the shards in an order of its own, reads several by turns, and shuffles within windows. A training
    that goes on in the middle of an epoch reads over the records before, without decoding them; so does a process over
    those of others.

    Attributes:
        class_names: names of the classes, in the order of their labels.
        labels: (N,) int32, in the order of the records.
        shards: the files.
        plain: (N,) truth values, True for what is a JPEG file as it was; others are PNG.
        has_fourth: whether fourth channels were kept; shards of version 0.1 have none.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray
    shards: tuple[ShardFile, ...]
    plain: np.ndarray
    has_fourth: bool = True

    @staticmethod
    def recognizes(folder: str | Path) -> bool:
        """Whether `folder` holds shards."""
        return (Path(folder) / INDEX).is_file()

    @classmethod
    def open(cls, folder: str | Path) -> "dict[str, RecordSource]":
        """The splits by name: `train` and `val`.

        Raises:
            FileError: if there is no index, or it cannot be read, or a shard is missing or not whole.
        """
        folder = Path(folder)
        if not cls.recognizes(folder):
            raise FileError(f"'{folder}' contains no shards: it has no '{INDEX}'. `repvgg shard` writes them.")
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
            if index["repvgg_records"] != VERSION:
                raise FileError(f"The shards in '{folder}' were written by a newer version of repvgg. Upgrade it.")
            names = tuple(str(name) for name in index["class_names"])
            fourth = index.get("fourth_channel") is True
            splits = {str(name): _split(folder, names, split, fourth) for name, split in index["splits"].items()}
        except FileError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise FileError(f"'{folder / INDEX}' cannot be read: {error!r}. Write the shards again.") from error
        for source in splits.values():
            for shard in source.shards:
                _check(shard)
        return splits

    def __len__(self) -> int:
        return len(self.labels)

    def routes(self) -> tuple[bool, bool]:
        """Whether there are JPEG files, and whether there are others."""
        return bool(np.any(self.plain)), not bool(np.all(self.plain))

    def training_items(self, plan: Plan) -> Any:
        """A dataset of (position, item, label)."""
        files = self._files()

        def epoch_of(epoch: Any, start: Any, stop: Any) -> Any:
            positions = tf.data.Dataset.range(plan.position(epoch, start), plan.position(epoch, stop))
            records = self._shuffled(files, plan, epoch).skip(start).take(stop - start)
            return tf.data.Dataset.zip((positions, records))

        items = plan.each_epoch(epoch_of)
        if plan.shard.count > 1:
            items = items.filter(plainly(lambda position, _: plan.owner(position) == plan.shard.index))
        return plan.expected(items.map(plainly(lambda position, record: (position, *_parsed(record)))))

    def evaluation_items(self, indices: np.ndarray) -> Any:
        """A dataset of (item, label) of the images at `indices`, which increase."""
        wanted = np.zeros(len(self), bool)
        wanted[indices] = True
        chosen = tf.constant(wanted)
        records = tf.data.TFRecordDataset(self._files())
        if len(indices) < len(self):
            records = records.enumerate().filter(plainly(lambda place, _: tf.gather(chosen, place)))
            records = records.map(plainly(lambda _, record: record))
        return records.map(plainly(_parsed)).apply(tf.data.experimental.assert_cardinality(len(indices)))

    def jpeg(self, item: Any) -> Any:
        """The bytes of a JPEG file."""
        return item["content"]

    def pixels(self, item: Any, channels: int) -> Any:
        """Any other image: (H, W, channels) uint8."""
        if channels == 4:
            return tf.io.decode_png(item["content"], channels=4)
        return with_channels(tf.io.decode_png(item["content"], channels=3), channels)

    def check_channels(self, channels: int) -> None:
        """Raises FileError if images of so many channels were not kept."""
        if channels == 4 and not self.has_fourth and not self.plain.all():
            raise FileError(
                f"The shards in '{self.shards[0].path.parent}' were written without the images' fourth channel, and "
                "the network takes 4. Write them again with `repvgg shard`."
            )

    def _files(self) -> Any:
        # File names need not be valid Unicode; their bytes always open them.
        return tf.constant([os.fsencode(shard.path) for shard in self.shards])

    def _shuffled(self, files: Any, plan: Plan, epoch: Any) -> Any:
        """All records in the order of `epoch`.

        Not by `Dataset.shuffle`: what that does with a seed depends on TensorFlow's global seed as well.
        """
        order = permutation(len(self.shards), plan.stream(SHARDS, epoch))
        records = tf.data.Dataset.from_tensor_slices(tf.gather(files, order)).interleave(
            tf.data.TFRecordDataset, cycle_length=READERS, block_length=BLOCK
        )

        def shuffled(number: Any, window: Any) -> Any:
            return tf.gather(window, permutation(tf.size(window), plan.stream(WINDOWS, epoch * 2**32 + number)))

        return records.batch(WINDOW).enumerate().map(plainly(shuffled)).unbatch()


def _parsed(record: Any) -> tuple[Any, Any]:
    fields = tf.io.parse_single_example(
        record,
        {
            FIELDS["content"]: tf.io.FixedLenFeature((), tf.string),
            FIELDS["label"]: tf.io.FixedLenFeature((), tf.int64),
            FIELDS["format"]: tf.io.FixedLenFeature((), tf.string),
        },
    )
    item = {"content": fields[FIELDS["content"]], "plain": fields[FIELDS["format"]] == b"jpeg"}
    return item, tf.cast(fields[FIELDS["label"]], tf.int32)


def _split(folder: Path, class_names: tuple[str, ...], split: dict[str, Any], fourth: bool) -> RecordSource:
    labels = np.asarray(split["labels"], np.int32)
    plain = np.ones(len(labels), bool)
    plain[np.asarray(split["png"], np.int64)] = False
    shards = tuple(
        ShardFile(folder / shard["file"], int(shard["images"]), int(shard["size"])) for shard in split["shards"]
    )
    if sum(shard.images for shard in shards) != len(labels) or not ((labels >= 0) & (labels < len(class_names))).all():
        raise FileError(f"'{folder / INDEX}' contradicts itself. Write the shards again.")
    return RecordSource(class_names, labels, shards, plain, fourth)


def _check(shard: ShardFile) -> None:
    if not shard.path.is_file():
        raise FileError(f"The shard '{shard.path}' does not exist. Copy it here as well, or write the shards again.")
    size = shard.path.stat().st_size
    if size != shard.size:
        raise FileError(
            f"The shard '{shard.path}' has {size:,} bytes and was written with {shard.size:,}; it is truncated or "
            "damaged. Copy it again, or write the shards again."
        )
