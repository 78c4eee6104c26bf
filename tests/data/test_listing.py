"""CSV files of paths and labels as data sets."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repvgg.base.errors import FileError, UnknownNameError
from repvgg.base.metadata import Preprocessing
from repvgg.data.folder import find_labelled_images, find_splits, is_listed
from repvgg.evaluation.labels import labelled_for
from repvgg.quantization.calibration import calibration_images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine images of one colour each, in one flat folder."""
    (tmp_path / "photos").mkdir()
    for index in range(9):
        Image.new("RGB", (8, 8), (20 * index, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def _write(file: Path, *lines: str) -> Path:
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


PLAIN = ["photos/0.png,cat", "photos/1.png,ant", "photos/2.png,cat"]


@pytest.mark.parametrize(
    "lines",
    [
        PLAIN,
        ["path,label", *PLAIN],
        ["\ufeffPath,Label", *PLAIN],
        ["id;class;file_name", "7;cat;photos/0.png", "8;ant;photos/1.png", "9;cat;photos/2.png"],
        ["image\tlabel", "photos/0.png\tcat", "", "photos/1.png\tant", "photos/2.png\tcat", ""],
        ['"photos/0.png", "cat"', "photos/1.png , ant", "photos/2.png,cat"],
    ],
)
def test_forms(root: Path, lines: list[str]) -> None:
    found = find_labelled_images(_write(root / "list.csv", *lines))
    assert found.class_names == ("ant", "cat")
    assert [path.relative_to(root).as_posix() for path in found.paths] == [
        *("photos/1.png", "photos/0.png", "photos/2.png")
    ]
    assert found.labels.tolist() == [0, 1, 1]


def test_absolute_paths_and_numbers(root: Path) -> None:
    lines = [f"{root / 'photos' / f'{index}.png'},{(10, 9, 2)[index]}" for index in range(3)]
    assert find_labelled_images(_write(root / "list.csv", *lines)).class_names == ("2", "9", "10")


def test_splits(root: Path) -> None:
    lines = [f"photos/{index}.png,{'ant' if index < 4 else 'bee'}" for index in range(8)]
    train, val = find_splits(_write(root / "all.csv", *lines), holdout=0.25, seed=0)
    assert (train.counts.tolist(), val.counts.tolist()) == ([3, 3], [1, 1])
    assert not set(train.paths) & set(val.paths)

    _write(root / "train.csv", *lines)
    assert is_listed(root)
    assert [len(split) for split in find_splits(root)] == [6, 2]
    _write(root / "val.csv", "photos/8.png,bee")
    train, val = find_splits(root)
    assert (train.counts.tolist(), val.counts.tolist()) == ([4, 4], [0, 1])
    assert labelled_for(("bee", "ant", "cow"), root).labels.tolist() == [0]


def test_evaluation_counts_through_the_networks_classes(root: Path) -> None:
    file = _write(root / "list.csv", *PLAIN)
    found = labelled_for(("cat", "dog", "ant"), file)
    assert (found.class_names, found.labels.tolist()) == (("cat", "dog", "ant"), [0, 0, 2])
    with pytest.raises(UnknownNameError, match=r"no class \(line 2 of '.*list.csv'\) called 'ant'"):
        labelled_for(("cat", "aunt"), file)


def test_calibration(root: Path) -> None:
    images = calibration_images(_write(root / "list.csv", *PLAIN), Preprocessing(8, 8), count=2)
    # One of each class: the colours 0 or 40 of the cats, and 20 of the ant.
    reds = np.rint((images[:, 0, 0, 0] * 0.229 + 0.485) * 255).astype(int).tolist()
    assert 20 in reds
    assert len({0, 40} & set(reds)) == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], r"is empty \(0 bytes\)"),
        (["path,label"], "lists no image"),
        (["a,b", "photos/0.png,cat"], "begins with the line 'a, b'. Expected a path and a label in each line"),
        (["photos/0.png"], "begins with the line 'photos/0.png'"),
        ([*PLAIN, "photos/3.png"], "Line 4 of .* has 1 columns, and 2 were expected"),
        ([*PLAIN, "photos/3.png,a,b"], "Line 4 of .* has 3 columns"),
        (["path,label", *PLAIN, "photos/3.png,"], "Line 5 of .* has no label"),
        ([*PLAIN, ",cat"], "Line 4 of .* has no path"),
        ([*PLAIN, "gone.png,cat"], r"do not exist \(line 4: '.*gone.png'\). Paths are relative to the folder"),
        ([*PLAIN, "photos/0.png,ant"], "two labels: 'cat' in line 1 and 'ant' in line 4"),
        (["photos/0.png,cat", "photos/1.png,cat"], "a single label, 'cat'"),
    ],
)
def test_mistakes(root: Path, lines: list[str], message: str) -> None:
    file = root / "list.csv"
    file.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(FileError, match=message):
        find_labelled_images(file)


def test_another_encoding(root: Path) -> None:
    (root / "list.csv").write_bytes("photos/0.png,Käfer\n".encode("latin-1"))
    with pytest.raises(FileError, match="is not text in UTF-8"):
        find_labelled_images(root / "list.csv")


def test_a_missing_file(root: Path) -> None:
    with pytest.raises(FileError, match=r"The CSV file '.*none.csv' does not exist"):
        find_splits(root / "none.csv")
