"""Measured choices in a `.repvgg` file: only its header is written anew, arrays are copied as they are."""

import json
import os
import shutil
from pathlib import Path

from repvgg.base.errors import FileError
from repvgg.base.files import atomic_output
from repvgg.engine.tune import Tuned
from repvgg.targets.native.file import HEADER_KEY, MAX_TUNED, read_plan, tuned_to_json

_LENGTH = 8
"""Bytes before a safetensors header, which say how long it is; its end is aligned to as many."""


def require_rewritable(path: Path) -> None:
    """Refuses a file beside which none can be written, before time is spent on measuring.

    Raises:
        FileError: if it is so.
    """
    if not os.access(path.parent, os.W_OK):
        raise FileError(
            f"What is measured is kept in '{path}', and nothing can be written in its folder. Copy the file to another "
            "one, or do without tuning."
        )


def add_tuned(path: Path, tuned: Tuned) -> None:
    """Keeps a measured choice in a file, in place of one for the same case. Readers see the old or the new file.

    Raises:
        FileError: if the file is damaged.
    """
    kept = [entry for entry in read_plan(path).tuned if entry.key != tuned.key]
    entries = [*kept, tuned][-MAX_TUNED:]
    with path.open("rb") as source, atomic_output(path) as temporary:
        header = json.loads(source.read(int.from_bytes(source.read(_LENGTH), "little")))
        own = json.loads(header["__metadata__"][HEADER_KEY])
        own["tuned"] = tuned_to_json(entries)
        header["__metadata__"][HEADER_KEY] = json.dumps(own, ensure_ascii=False)
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _LENGTH)
        with temporary.open("wb") as target:
            target.write(len(text).to_bytes(_LENGTH, "little") + text)
            # Places of arrays are counted from the end of the header.
            shutil.copyfileobj(source, target)
        shutil.copymode(path, temporary)
