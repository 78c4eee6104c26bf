"""Labelled images that a CSV file lists: a path and a label in each line."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repvgg.base.errors import FileError, UnknownNameError
from repvgg.base.files import require_file
from repvgg.data.images import IMAGE_SUFFIXES

LISTING_SUFFIXES = (".csv", ".tsv")

PATH_HEADINGS = ("path", "image", "file", "filename", "filepath", "image_path", "image_file", "file_path", "file_name")
LABEL_HEADINGS = ("label", "class", "class_name", "category", "target", "species")
"""What the two columns may be called, in capitals or not; other columns are passed over."""

SHOWN = 3
"""Lines that a message names."""

_EXPECTED = (
    f"Expected a path and a label in each line, or a header that names the columns: one of {', '.join(PATH_HEADINGS)}, "
    f"and one of {', '.join(LABEL_HEADINGS)}."
)


@dataclass(frozen=True)
class Listed:
    """Image files and the label of each, in the order of the lines, and the labels that there are."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]
    class_names: tuple[str, ...]


def is_listing(path: Path) -> bool:
    """Whether it is a file that lists images."""
    return path.suffix.lower() in LISTING_SUFFIXES and not path.is_dir()


def read_listing(file: Path, class_names: Sequence[str] | None = None) -> Listed:
    """The images that a CSV file lists. Commas, semicolons or tabs part the columns; a header may name them.

    Paths are relative to the file's folder. Classes are sorted by name; labels that are all whole numbers by number.

    Args:
        class_names: the classes of a model that exists already: a label that is not one of them is an error.

    Raises:
        FileError: if the file is missing or empty, or a line is not a path and a label, or names a file that is not
            there; the message names the lines.
        UnknownNameError: if a label is not one of the `class_names`.
    """
    require_file(file, what="CSV file")
    rows = list(_rows(file))
    missing = [(line, path) for line, path, _ in rows if not path.exists()]
    if missing:
        named = "; ".join(f"line {line}: '{path}'" for line, path in missing[:SHOWN])
        more = f"; and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        raise FileError(
            f"'{file}' names images that do not exist ({named}{more}). Paths are relative to the folder of the file."
        )
    _refuse_contradictions(file, rows)
    if class_names is not None:
        for line, _, label in rows:
            if label not in class_names:
                raise UnknownNameError(f"class (line {line} of '{file}')", label, class_names)
        names = tuple(class_names)
    else:
        labels = {label for _, _, label in rows}
        numbers = all(label.isdecimal() for label in labels)
        names = tuple(sorted(labels, key=int) if numbers else sorted(labels))
    return Listed(tuple(path for _, path, _ in rows), tuple(label for _, _, label in rows), names)


def _rows(file: Path) -> Iterator[tuple[int, Path, str]]:
    """Number of the line, path and label; a header gives none."""
    try:
        # A file that a spreadsheet wrote may begin with a byte order mark.
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(f"'{file}' is not text in UTF-8 ({error}). Save it again as 'CSV UTF-8'.") from error
    first = text.partition("\n")[0]
    reader = csv.reader(text.splitlines(keepends=True), delimiter=max(",;\t", key=first.count), skipinitialspace=True)
    place: tuple[int, int] | None = None
    found = False
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if place is None:
                place = _columns([cell.strip().lower() for cell in cells])
                if place is not None:
                    width = len(cells)
                    continue
                place, width = _without_header(file, cells), 2
            if len(cells) != width:
                raise FileError(
                    f"Line {reader.line_num} of '{file}' has {len(cells)} columns, and {width} were expected. "
                    "Put a path or label that contains the separator into quotation marks."
                )
            path, label = (cells[column].strip() for column in place)
            if not path or not label:
                raise FileError(f"Line {reader.line_num} of '{file}' has no {'label' if path else 'path'}. {_EXPECTED}")
            found = True
            yield reader.line_num, file.parent / path, label
    except csv.Error as error:
        raise FileError(f"Line {reader.line_num} of '{file}' cannot be read as CSV: {error}.") from error
    if not found:
        raise FileError(f"'{file}' lists no image. {_EXPECTED}")


def _columns(names: Sequence[str]) -> tuple[int, int] | None:
    """Where a header has the path and the label; None if it is not a header."""
    paths = [place for place, name in enumerate(names) if name in PATH_HEADINGS]
    labels = [place for place, name in enumerate(names) if name in LABEL_HEADINGS]
    return (paths[0], labels[0]) if paths and labels else None


def _without_header(file: Path, cells: Sequence[str]) -> tuple[int, int]:
    """The columns of a file that begins with an image.

    Raises:
        FileError: if it does not.
    """
    if len(cells) == 2 and Path(cells[0].strip()).suffix.lower() in IMAGE_SUFFIXES:
        return 0, 1
    raise FileError(f"'{file}' begins with the line '{', '.join(cells)[:80]}'. {_EXPECTED}")


def _refuse_contradictions(file: Path, rows: Sequence[tuple[int, Path, str]]) -> None:
    seen: dict[Path, tuple[int, str]] = {}
    for line, path, label in rows:
        before, other = seen.setdefault(path, (line, label))
        if other != label:
            raise FileError(
                f"'{file}' gives '{path.name}' two labels: '{other}' in line {before} and '{label}' in line {line}. "
                "Each image has one."
            )
