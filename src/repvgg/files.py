"""Writing files so that nothing is ever half-written or overwritten by accident."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repvgg.errors import FileError, OutputExistsError


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raises `OutputExistsError` if `path` is taken and the caller did not ask to replace it."""
    if path.exists() and not force:
        raise OutputExistsError(
            f"'{path}' already exists and would be overwritten. Choose another name, or pass --force (force=True)."
        )


def require_file(path: Path, *, what: str = "file") -> None:
    """Raises `FileError` unless `path` is a regular, non-empty file."""
    if not path.exists():
        raise FileError(f"The {what} '{path}' does not exist. Check the path.")
    if path.is_dir():
        raise FileError(f"'{path}' is a folder, and a {what} was expected.")
    if path.stat().st_size == 0:
        raise FileError(f"The {what} '{path}' is empty (0 bytes). It was probably not written to the end.")


@contextmanager
def atomic_output(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block ends without an error.

    The temporary name keeps the suffix, because Keras and others choose their format by it. A reader sees the old
    content or the whole new content, never a part. On an error the temporary file or folder is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.stem}.", dir=path.parent))
    temporary = scratch / path.name
    try:
        yield temporary
        if temporary.is_file():
            with temporary.open("rb+") as handle:
                os.fsync(handle.fileno())
        elif path.is_dir():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
