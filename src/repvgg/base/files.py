"""Writing files so that nothing is ever half-written or overwritten by accident."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from repvgg.base.errors import FileError, OutputExistsError
from repvgg.base.stopping import never_half, undone_if_stopped


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


def size_on_disk(path: Path) -> int:
    """Bytes of a network's file with the `.bin` that belongs to an OpenVINO one, or of a SavedModel's folder."""
    if path.is_dir():
        return sum(item.stat().st_size for item in path.rglob("*") if item.is_file())
    beside = path.with_suffix(".bin")
    return path.stat().st_size + (beside.stat().st_size if path.suffix == ".xml" and beside.exists() else 0)


@contextmanager
def atomic_output(path: Path, beside: Sequence[str] = ()) -> Iterator[Path]:
    """Gives a temporary path beside `path`, and renames it to `path` when the block ends without an error.

    The temporary name keeps the suffix, because Keras and others choose their format by it. A reader sees the old
    content or the whole new content, never a part. On an error the temporary file or folder is removed.

    Args:
        beside: names of further files that the block writes next to the temporary one, and that belong to it: all of
            them appear, or none.
    """
    with folders_for(path), scratch_folder(path) as scratch:
        temporary = scratch / path.name
        yield temporary
        # What was asked for comes last: who sees it finds what belongs to it in place.
        written = [scratch / name for name in (*beside, path.name)]
        for item in written:
            if item.is_file():
                with item.open("rb+") as handle:
                    os.fsync(handle.fileno())
        if written == [temporary] and temporary.is_file():
            temporary.replace(path)
        else:
            with never_half():
                _put_in_place(written, path.parent, scratch)


@contextmanager
def scratch_folder(path: Path | None = None) -> Iterator[Path]:
    """A folder for the block alone: beside `path`, with a hidden name like it, or wherever the system has such ones."""
    made: list[Path] = []

    def remove() -> None:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)

    with undone_if_stopped(remove):
        try:
            with never_half():
                prefix, place = ("repvgg.", None) if path is None else (f".{path.stem}.", path.parent)
                made.append(Path(tempfile.mkdtemp(prefix=prefix, dir=place)))
            yield made[0]
        finally:
            remove()


@contextmanager
def folders_for(path: Path) -> Iterator[None]:
    """Makes the folders that `path` is to lie in, and takes back those it made if the block fails."""
    missing = [folder for folder in path.parents if not folder.exists()]

    def remove() -> None:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()

    with undone_if_stopped(remove):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            remove()
            raise


def _put_in_place(written: Sequence[Path], folder: Path, scratch: Path) -> None:
    """Moves several files, or a folder, which no single renaming can replace; all of it is undone if one step fails."""
    replaced = scratch / "replaced"
    replaced.mkdir()
    done: list[Path] = []
    try:
        for item in written:
            final = folder / item.name
            if final.exists():
                final.replace(replaced / item.name)
            done.append(final)
            item.replace(final)
    except BaseException:
        for final in done:
            if final.exists():
                final.replace(scratch / f"undone-{final.name}")
            if (replaced / final.name).exists():
                (replaced / final.name).replace(final)
        raise
