"""Every file is read before a training: what is broken is named, and what is not broken can be used everywhere."""

import re
import resource
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hostile_images import KINDS, Kind, jpeg, picture, write_all
from repvgg.base.errors import FileError, ImageError
from repvgg.base.metadata import Preprocessing
from repvgg.data import load_image, prepare_image
from repvgg.data.augmentation import Augmentation
from repvgg.data.folder import LabelledImages, find_labelled_images
from repvgg.data.scan import ScanReport, scan

# Pillow warns where a damaged record of the camera's is passed over.
pytestmark = pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")

EACH = 36
PREPROCESSING = Preprocessing(crop=24, resize=28)

Scanned = tuple[dict[Path, Kind], LabelledImages, ScanReport]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory: pytest.TempPathFactory) -> Scanned:
    """1,044 files of 29 kinds."""
    root = tmp_path_factory.mktemp("hostile")
    files = write_all(root, EACH)
    images = find_labelled_images(root)
    assert len(images) == len(files) >= 1000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = scan(images)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # Kilobytes. A bomb, or a row of pixels that was resized, would take gigabytes.
    assert grown < 300_000
    return files, images, report


def test_exactly_the_broken_ones_are_named(scanned: Scanned) -> None:
    files, images, report = scanned
    broken = {item.path: item for item in report.broken}
    assert set(broken) == {path for path, kind in files.items() if kind.verdict == "broken"}
    for path, item in broken.items():
        assert str(path) in item.reason
        assert re.search(files[path].reason, item.reason), item.reason
        assert images.paths[item.position] == path


def test_the_others_keep_order_and_labels(scanned: Scanned) -> None:
    files, images, report = scanned
    kept = [index for index, path in enumerate(images.paths) if files[path].verdict != "broken"]
    assert report.images.paths == tuple(images.paths[index] for index in kept)
    np.testing.assert_array_equal(report.images.labels, images.labels[kept])


def test_plain_ones_are_told_from_others(scanned: Scanned) -> None:
    files, _, report = scanned
    for path, plain in zip(report.images.paths, report.plain, strict=True):
        assert plain == (files[path].verdict == "plain"), path.name


def test_usable_ones_are_read_by_pillow(scanned: Scanned) -> None:
    _, _, report = scanned
    for path in report.images.paths:
        prepared = prepare_image(load_image(path), PREPROCESSING)
        assert prepared.shape == (24, 24, 3)
        assert np.isfinite(prepared).all()


def test_usable_ones_are_read_alike_by_the_pipeline(scanned: Scanned) -> None:
    from repvgg.pipeline import FolderSource, evaluation_batches

    _, _, report = scanned
    source = FolderSource(report.images, report.plain)
    batches = list(evaluation_batches(source, PREPROCESSING, batch_size=64))
    images, labels = (np.concatenate([pair[side] for pair in batches]) for side in (0, 1))
    np.testing.assert_array_equal(labels, report.images.labels, strict=True)
    levels = np.float32(PREPROCESSING.std) * 255
    for path, image in zip(report.images.paths, images, strict=True):
        expected = prepare_image(load_image(path), PREPROCESSING)
        assert np.abs((image - expected) * levels).max() < 1.001, path.name


def test_usable_ones_are_trained_with(scanned: Scanned) -> None:
    from repvgg.pipeline import FolderSource, steps_per_epoch, training_batches

    _, _, report = scanned
    source = FolderSource(report.images, report.plain)
    last = steps_per_epoch(source, 21)
    batches = training_batches(
        source, PREPROCESSING, Augmentation(), batch_size=21, seed=0, first_step=0, last_step=last
    )
    assert sum(np.isfinite(images).all() for images, _ in batches) == last == len(source) // 21


def test_strict_and_summary(scanned: Scanned) -> None:
    _, images, report = scanned
    first = [str(item.path) for item in report.broken[:3]]
    with pytest.raises(
        ImageError, match=r"288 images are broken[\s\S]* and 285 more\.[\s\S]*Replace or remove"
    ) as caught:
        scan(images, strict=True)
    for text in (str(caught.value), report.summary()):
        assert all(name in text for name in first)
    assert "756 images of 2 classes, 504 of them not plain JPEG" in report.summary()


def folder(root: Path, **classes: list[bytes]) -> LabelledImages:
    for name, contents in classes.items():
        (root / name).mkdir(parents=True)
        for index, content in enumerate(contents):
            (root / name / f"{index}.jpg").write_bytes(content)
    return find_labelled_images(root)


def test_good_folder(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = folder(tmp_path, a=[jpeg(rng)] * 3, b=[jpeg(rng)] * 2)
    done: list[int] = []
    report = scan(images, strict=True, workers=3, advance=done.append)
    assert sum(done) == 5
    assert report.summary() == "5 images of 2 classes, all readable."
    assert report.broken == ()


def test_a_class_or_everything_lost(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ImageError, match=r"No image of 'b' can be used\. 2 images are broken"):
        scan(folder(tmp_path / "class", a=[jpeg(rng), b""], b=[b"x"]))
    with pytest.raises(ImageError, match=r"None of the 2 images can be used\."):
        scan(folder(tmp_path / "all", a=[b"x"], b=[b"x"]))


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    folder(tmp_path, a=[jpeg(rng)], b=[jpeg(rng)])
    (tmp_path / "a" / "lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    report = scan(find_labelled_images(tmp_path))
    assert [item.path.name for item in report.broken] == ["lost.jpg"]
    assert "does not exist" in report.broken[0].reason


@pytest.mark.parametrize("damage", ["change", "remove", "insert"])
def test_damaged_jpegs_never_end_a_training(damage: str, tmp_path: Path) -> None:
    """What a scan calls plain, TensorFlow's decoder reads, however the file is damaged inside."""
    import tensorflow as tf

    rng = np.random.default_rng(1)
    path, plain, usable = tmp_path / "damaged.jpg", 0, 0
    for _ in range(150):
        content = bytearray(jpeg(rng, progressive=bool(rng.random() < 0.3)))
        at = int(rng.integers(2, len(content)))
        match damage:
            case "change":
                content[at] = int(rng.integers(256))
            case "remove":
                del content[at : at + 3]
            case _:
                content[at:at] = rng.bytes(3)
        path.write_bytes(content)
        report = scan(LabelledImages((path, path), np.int32([0, 1]), ("a", "b"))) if _readable(path) else None
        if report is not None:
            usable += 1
            assert load_image(path).mode == "RGB"
            if report.plain[0]:
                plain += 1
                tf.io.decode_jpeg(bytes(content), channels=3)
    assert usable > 20
    assert plain > 10


def _readable(path: Path) -> bool:
    try:
        load_image(path)
    except FileError:
        return False
    return True


def test_sides_too_different_are_refused_before_they_grow() -> None:
    with pytest.raises(ImageError, match=r"its sides are 20000 x 1 pixels.*at most 100 times"):
        prepare_image(Image.new("RGB", (20000, 1)), PREPROCESSING)
    assert prepare_image(Image.new("RGB", (100, 1)), PREPROCESSING).shape == (24, 24, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int, tmp_path: Path) -> None:
    """As Pillow's own function turns it."""
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(np.random.default_rng(0)).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as opened:
        expected = ImageOps.exif_transpose(opened)
    np.testing.assert_array_equal(np.asarray(load_image(tmp_path / "turned.png")), np.asarray(expected))


def test_table_of_kinds_has_all_verdicts() -> None:
    assert {kind.verdict for kind in KINDS.values()} == {"plain", "usable", "broken"}
