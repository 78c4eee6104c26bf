"""Labelled images in folders: layouts that occur, and what is wrong with those that do not work."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from repvgg.base.errors import FileError, InputError, UnknownNameError
from repvgg.data.folder import LabelledImages, find_labelled_images, find_splits


def touch(root: Path, names: Iterable[str]) -> Path:
    """Nothing is opened here, so that any content does."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def flat(root: Path, **counts: int) -> Path:
    return touch(root, (f"{name}/{index:03}.jpg" for name, count in counts.items() for index in range(count)))


def names_of(images: LabelledImages, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images.paths]


def test_one_folder_a_class_any_depth_sorted(tmp_path: Path) -> None:
    touch(
        tmp_path,
        [
            "b/2.png",
            "b/deep/er/1.JPEG",
            "a/z.webp",
            "a/notes.txt",
            "a/.hidden.jpg",
            "a/.cache/x.jpg",
            ".git/x.jpg",
            "x.jpg",
        ],
    )
    images = find_labelled_images(tmp_path)
    assert images.class_names == ("a", "b")
    assert names_of(images, tmp_path) == ["a/z.webp", "b/2.png", "b/deep/er/1.JPEG"]
    np.testing.assert_array_equal(images.labels, np.int32([0, 1, 1]), strict=True)
    assert len(images) == 3
    np.testing.assert_array_equal(images.counts, [1, 2])


def test_subset_by_positions_and_by_mask(tmp_path: Path) -> None:
    images = find_labelled_images(flat(tmp_path, a=2, b=2))
    for chosen in ([3, 0], np.array([3, 0])):
        part = images.subset(chosen)
        assert names_of(part, tmp_path) == ["b/001.jpg", "a/000.jpg"]
        np.testing.assert_array_equal(part.labels, np.int32([1, 0]), strict=True)
        assert part.class_names == ("a", "b")
    assert names_of(images.subset(np.array([False, True, True, False])), tmp_path) == ["a/001.jpg", "b/000.jpg"]
    assert len(images.subset([])) == 0


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    flat(tmp_path / "store", rose=1)
    flat(tmp_path / "data", tulip=1)
    (tmp_path / "data/rose").symlink_to(tmp_path / "store/rose")
    (tmp_path / "data/tulip/again").symlink_to(tmp_path / "data/tulip")
    (tmp_path / "data/tulip/lost.jpg").symlink_to(tmp_path / "nowhere.jpg")
    images = find_labelled_images(tmp_path / "data")
    assert names_of(images, tmp_path / "data") == ["rose/000.jpg", "tulip/000.jpg", "tulip/lost.jpg"]


@pytest.mark.parametrize("validation", ["val", "validation", "valid", "test"])
def test_given_splits(validation: str, tmp_path: Path) -> None:
    touch(
        tmp_path, ["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg", f"{validation}/b/2.jpg", f"{validation}/c/2.jpg"]
    )
    (tmp_path / validation / "a").mkdir()
    train, held = find_splits(tmp_path)
    assert names_of(train, tmp_path) == ["train/a/1.jpg", "train/b/1.jpg", "train/c/1.jpg"]
    assert names_of(held, tmp_path) == [f"{validation}/b/2.jpg", f"{validation}/c/2.jpg"]
    assert held.class_names == train.class_names
    np.testing.assert_array_equal(held.labels, [1, 2])


def test_val_comes_before_test(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        flat(tmp_path / split, a=1, b=1)
    _, held = find_splits(tmp_path)
    assert names_of(held, tmp_path) == ["val/a/000.jpg", "val/b/000.jpg"]


@pytest.mark.parametrize("folder", [".", "train"])
def test_held_out_share_of_each_class(folder: str, tmp_path: Path) -> None:
    flat(tmp_path / folder, a=100, b=10, c=2)
    train, held = find_splits(tmp_path, holdout=0.2, seed=3)
    np.testing.assert_array_equal(held.counts, [20, 2, 1])
    np.testing.assert_array_equal(train.counts, [80, 8, 1])
    assert not set(train.paths) & set(held.paths)
    again = find_splits(tmp_path, holdout=0.2, seed=3)[1]
    assert again.paths == held.paths
    assert find_splits(tmp_path, holdout=0.2, seed=4)[1].paths != held.paths


def test_most_of_a_class_held_out_leaves_one_to_train_with(tmp_path: Path) -> None:
    train, held = find_splits(flat(tmp_path, a=3, b=2), holdout=0.99)
    np.testing.assert_array_equal(train.counts, [1, 1])
    np.testing.assert_array_equal(held.counts, [2, 1])


def test_a_further_class_moves_no_image(tmp_path: Path) -> None:
    _, before = find_splits(flat(tmp_path, b=20, c=20))
    _, after = find_splits(flat(tmp_path, a=20))
    assert [path for path in after.paths if "/a/" not in path.as_posix()] == list(before.paths)


def test_classes_called_train_and_bus(tmp_path: Path) -> None:
    train, _ = find_splits(flat(tmp_path, train=5, bus=5))
    assert train.class_names == ("bus", "train")


def test_labels_count_through_the_models_classes(tmp_path: Path) -> None:
    images = find_labelled_images(flat(tmp_path, tulip=1, daisy=2), ("tulip", "rose", "daisy"))
    assert images.class_names == ("tulip", "rose", "daisy")
    np.testing.assert_array_equal(images.labels, [0, 2, 2])
    flat(tmp_path, rosse=1)
    with pytest.raises(UnknownNameError, match=r"no class \(folder '.*rosse'\) called 'rosse'. Did you mean rose\?"):
        find_labelled_images(tmp_path, ("tulip", "rose", "daisy"))


def test_layouts_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        find_splits(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileError, match=r"is a file, and a folder"):
        find_splits(tmp_path / "file")
    with pytest.raises(FileError, match=r"has no class sub-folders. Expected one sub-folder a class"):
        find_splits(touch(tmp_path / "loose", ["1.jpg"]))
    with pytest.raises(FileError, match=r"a single class sub-folder, 'a', and there is nothing to learn"):
        find_splits(flat(tmp_path / "one", a=3))
    with pytest.raises(FileError, match=r"The class folders 'b', 'c' in .* have no image. Looked for \.jpg"):
        find_splits(touch(tmp_path / "empty", ["a/1.jpg", "b/readme.txt", "c/.1.jpg"]))
    with pytest.raises(InputError, match=r"The classes 'b', 'c' in .* have a single image, and two are needed"):
        find_splits(flat(tmp_path / "few", a=2, b=1, c=1))
    with pytest.raises(FileError, match=r"contains no images in sub-folders named like the model's classes: a, b"):
        find_labelled_images(touch(tmp_path / "other", ["a/readme.txt"]), ("a", "b"))
    for split, names in {"train": ("a", "b"), "val": ("a", "ghost")}.items():
        flat(tmp_path / "differ" / split, **dict.fromkeys(names, 1))
    with pytest.raises(FileError, match=r"val' has the class 'ghost', which '.*train' lacks. .*'train' has a, b"):
        find_splits(tmp_path / "differ")


@pytest.mark.parametrize("holdout", [0.0, 1.0, -1.0, float("nan")])
def test_holdout_is_a_share(holdout: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`holdout`"):
        find_splits(flat(tmp_path, a=2, b=2), holdout=holdout)
    with pytest.raises(InputError, match="`seed`"):
        find_splits(tmp_path, seed=-1)
