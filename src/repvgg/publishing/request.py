"""Whether what was asked for can be done, before a framework is started."""

from pathlib import Path
from typing import Any

from repvgg.base.errors import FileError, InputError, OutputExistsError
from repvgg.base.files import require_file
from repvgg.base.run_folder import BEST, DEPLOYED, SETTINGS, RunFolder
from repvgg.checkpoints.repository import Repository, parse_repository

CHECKPOINTS = (".pth", ".pt", ".bin", ".safetensors")


def check_request(network: Any, repository: str, output: str | Path | None) -> Repository:
    """Looks at what can be looked at before a framework is started.

    Raises:
        InputError: if the repository cannot be called so.
        FileError: if there is no such run or file.
        OutputExistsError: if there is something in the folder for the files.
    """
    where = parse_repository(repository)
    if "@" in repository:
        raise InputError(f"A push goes to the main branch. Leave out '@{where.revision}'.")
    if isinstance(network, str | Path):
        require_publishable(Path(network))
    folder = Path(output) if output is not None else None
    if folder is not None and (folder.is_file() or (folder.is_dir() and any(folder.iterdir()))):
        raise OutputExistsError(f"'{folder}' is there already, and not an empty folder. Choose another `output`.")
    return where


def require_publishable(path: Path) -> None:
    """Looks at what can be looked at before a framework is started.

    Raises:
        FileError: if there is neither a run nor a network's file.
    """
    if path.is_dir() or (not path.exists() and not path.suffix):
        folder = RunFolder(path)
        if not folder.started:
            raise FileError(
                f"'{path}' is not a run's folder: it has no '{SETTINGS}'. Give one, such as runs/RepVGG-A0-flowers, or "
                "a network's file."
            )
        if not any((folder / name).exists() for name in (BEST, DEPLOYED)):
            raise FileError(f"The run in '{path}' has no network yet. Go on with it: repvgg train --resume {path}.")
        return
    if path.suffix not in (".keras", *CHECKPOINTS):
        raise FileError(
            f"'{path.name}' ends in none of .keras, {', '.join(CHECKPOINTS)}, and is not a run's folder; these are "
            "what can be published."
        )
    require_file(path, what="network")
