"""Sharded TFRecords: a collection of images in a few large files, which read faster from disks and networks.

A folder of shards has an index, `records.json`, with the class names and, for each split, its shards with their sizes,
the label of each record, and which of them are PNG. Records are `tf.train.Example` messages.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from repvgg.base.errors import InputError, OutputExistsError
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.data.folder import SHARDS_INDEX, LabelledImages
from repvgg.data.images import load_image
from repvgg.data.scan import ScanReport

INDEX = SHARDS_INDEX
VERSION = 1
FIELDS: Mapping[str, str] = {
    "content": "image/encoded",
    "format": "image/format",
    "label": "image/class/label",
    "name": "image/filename",
}
SHARD_SIZE = 128 * 10**6
"""Bytes of image files in a shard, where nothing else is asked for."""


@dataclass(frozen=True)
class Written:
    """What `write_records` wrote of one split."""

    images: int
    shards: int
    size: int


def write_records(
    splits: Mapping[str, ScanReport],
    output: str | Path,
    *,
    shards: int | None = None,
    shard_size: int = SHARD_SIZE,
    seed: int = 0,
    force: bool = False,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Written]:
    """Writes a folder of shards, which `RecordSource.open` reads.

    Plain JPEG files are stored as they are, byte for byte. All others become PNG, without loss after Pillow has read
    them and turned them upright, and with a fourth channel if they have one, so that reading needs no Pillow. The
    images of `train` are shuffled once, the others keep their order.

    Args:
        splits: `train` and `val`, as they were scanned.
        shards: files for each split; by `shard_size` in bytes if None.
        advance: called with the number of images that are done.

    Raises:
        InputError: for numbers that make no shards, or splits of different classes.
        OutputExistsError: if `output` exists and `force` is not given, or it is something else than shards.
    """
    output = Path(output)
    check_output(output, force=force)
    if (shards is not None and shards < 1) or shard_size < 1:
        raise InputError(
            f"Shards need a number or size above 0. Received: {shards if shards is not None else shard_size}."
        )
    names = {report.images.class_names for report in splits.values()}
    if len(names) != 1:
        raise InputError("All splits need the same classes.")
    index: dict[str, Any] = {
        "repvgg_records": VERSION,
        "fourth_channel": True,
        "class_names": list(names.pop()),
        "splits": {},
    }
    with atomic_output(output) as folder:
        folder.mkdir()
        for name, report in splits.items():
            order = np.arange(len(report.images))
            if name == "train":
                order = np.random.default_rng(seed).permutation(order)
            count = shards or -(-sum(path.stat().st_size for path in report.images.paths) // shard_size)
            parts = np.array_split(order, min(count, len(order)))
            files = [
                _write_shard(folder / f"{name}-{number:05}-of-{len(parts):05}.tfrecord", report, part, advance)
                for number, part in enumerate(parts)
            ]
            index["splits"][name] = {
                "shards": files,
                "labels": report.images.labels[order].tolist(),
                "png": np.flatnonzero(~report.plain[order]).tolist(),
            }
        (folder / INDEX).write_text(json.dumps(index, ensure_ascii=False) + "\n", encoding="utf-8")
    return {
        name: Written(len(split["labels"]), len(split["shards"]), sum(file["size"] for file in split["shards"]))
        for name, split in index["splits"].items()
    }


def check_output(output: Path, *, force: bool) -> None:
    """Raises OutputExistsError if `output` cannot be written; `force` replaces shards, and nothing else."""
    refuse_existing(output, force=force)
    if output.exists() and not (output / INDEX).is_file() and not (output.is_dir() and not any(output.iterdir())):
        raise OutputExistsError(
            f"'{output}' exists and is not a folder of shards, so it is not replaced, not even by --force. "
            "Choose another name."
        )


def _write_shard(
    path: Path, report: ScanReport, positions: np.ndarray, advance: Callable[[int], None] | None
) -> dict[str, Any]:
    with tf.io.TFRecordWriter(str(path)) as writer:
        for position in positions:
            writer.write(_record(report.images, int(position), plain=bool(report.plain[position])))
            if advance is not None:
                advance(1)
    return {"file": path.name, "images": len(positions), "size": path.stat().st_size}


def _record(images: LabelledImages, position: int, *, plain: bool) -> bytes:
    path = images.paths[position]
    if plain:
        content = path.read_bytes()
    else:
        stream = io.BytesIO()
        _pixels(path).save(stream, "PNG")
        content = stream.getvalue()
    values = {
        "content": _bytes(content),
        "format": _bytes(b"jpeg" if plain else b"png"),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(images.labels[position])])),
        "name": _bytes(path.name.encode("utf-8", "surrogateescape")),
    }
    features = tf.train.Features(feature={FIELDS[key]: value for key, value in values.items()})
    serialized: bytes = tf.train.Example(features=features).SerializeToString(deterministic=True)
    return serialized


def _pixels(path: Path) -> Any:
    """RGB, or RGBA if some pixel is not opaque: no shard grows by a channel that says nothing."""
    image = load_image(path, 4)
    return image if np.asarray(image.getchannel("A")).min() < 255 else image.convert("RGB")


def _bytes(value: bytes) -> Any:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
