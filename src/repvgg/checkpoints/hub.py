"""Files from the Hugging Face hub: published weights by name, and repositories."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from repvgg.base.dependencies import require
from repvgg.base.errors import CheckpointError, FileError, InputError
from repvgg.checkpoints import hub_config
from repvgg.checkpoints.hub_config import HubConfig
from repvgg.checkpoints.repository import Repository
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.models.variants import get_variant

PRETRAINED: Final[Mapping[str, str]] = {
    f"RepVGG-{name}": f"timm/repvgg_{name.lower()}.rvgg_in1k"
    for name in ("A0", "A1", "A2", "B0", "B1", "B1g4", "B2", "B2g4", "B3", "B3g4", "D2se")
}
"""Repository by variant: the official ImageNet-1k weights in timm's names, training form."""

FILE_NAME: Final = "model.safetensors"

_logger = logging.getLogger("repvgg")
CONNECTION_SECONDS = 5
"""After which a hub that gives no answer is taken for unreachable."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_READ_BYTES = 2**22


def fetch(
    variant_name: str, *, revision: str = "main", cache_dir: str | Path | None = None, local_files_only: bool = False
) -> Path:
    """The file of ImageNet-1k weights of a named network, downloaded if it is not in the cache.

    It is huggingface_hub that downloads, so its cache, its resuming and its settings (`HF_HOME`, `HF_HUB_CACHE`,
    `HF_HUB_OFFLINE`, `HF_ENDPOINT`) are at work. Before a file is handed out it is checked, cached or not: its SHA-256
    against the one the hub published, and its structure by reading it. A damaged copy is downloaded once more.

    Args:
        variant_name: one of `PRETRAINED`, in capitals or not.
        revision: branch, tag or commit of the repository.
        cache_dir: another cache than huggingface_hub's.
        local_files_only: take it from the cache or fail.

    Raises:
        UnknownNameError: if there is no such variant.
        InputError: if there are no weights for it; the message names those with.
        MissingDependencyError: if huggingface_hub is not installed.
        FileError: if the file cannot be had.
        CheckpointError: if it is damaged, and downloading did not help or was not allowed.

    Example:
        >>> fetch("RepVGG-A0")  # doctest: +SKIP
        PosixPath('.../models--timm--repvgg_a0.rvgg_in1k/snapshots/.../model.safetensors')
    """
    variant_name = get_variant(variant_name).name
    if variant_name not in PRETRAINED:
        raise InputError(
            f"There are no pretrained weights of {variant_name} on the hub. There are of: {', '.join(PRETRAINED)}. "
            "A file of your own can be given instead."
        )
    file = RemoteFile(f"weights of {variant_name}", PRETRAINED[variant_name], FILE_NAME, revision)
    return _fetch(file, _problem, cache_dir=cache_dir, local_files_only=local_files_only)


def fetch_repository(repository: Repository, *, cache_dir: str | Path | None = None) -> tuple[Path, HubConfig]:
    """The weights of a repository, and what its `config.json` says of them; cached and checked as `fetch` does.

    The file that describes the network comes first, so nothing large is downloaded of one that cannot be loaded.

    Raises:
        MissingDependencyError: if huggingface_hub is not installed.
        FileError: if the repository or one of the two files cannot be had.
        CheckpointError: if they are damaged, or hold no network of this package's.
    """

    def remote(name: str, most_bytes: int | None = None) -> RemoteFile:
        return RemoteFile(f"'{name}' of {repository}", repository.name, name, repository.revision, most_bytes)

    described = _fetch(remote(hub_config.FILE_NAME, hub_config.MOST_BYTES), _problem_of_config, cache_dir=cache_dir)
    config = HubConfig.read(described)
    return _fetch(remote(FILE_NAME), _problem, cache_dir=cache_dir), config


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, and what it is called in messages."""

    what: str
    repository: str
    name: str
    revision: str
    most_bytes: int | None = None
    """What is larger is not downloaded."""


def _fetch(
    file: RemoteFile,
    find_problem: Callable[[Path], str | None],
    *,
    cache_dir: str | Path | None,
    local_files_only: bool = False,
) -> Path:
    constants = _library("huggingface_hub.constants")
    download = partial(_download, file, cache_dir=cache_dir)
    path = download(local_files_only=local_files_only)
    problem = find_problem(path)
    if problem is None:
        return path
    if local_files_only or constants.HF_HUB_OFFLINE:
        raise CheckpointError(
            f"The cached file '{path}' is damaged: {problem} Fetch it again while the hub can be reached (offline mode "
            f"is on), or delete '{path.resolve()}'."
        )
    _logger.warning("The cached %s are damaged and are downloaded again: %s", file.what, problem)
    path = download(force_download=True)
    problem = find_problem(path)
    if problem is not None:
        raise CheckpointError(
            f"The {file.what} were downloaded from {constants.ENDPOINT}/{file.repository} and are damaged: {problem} "
            "Try again later; if HF_ENDPOINT names a mirror, try another."
        )
    return path


def _library(module: str) -> Any:
    return require(module, extra="hub", purpose="Downloading weights")


def _download(file: RemoteFile, **options: Any) -> Path:
    library, constants = _library("huggingface_hub"), _library("huggingface_hub.constants")
    offline = constants.HF_HUB_OFFLINE or options.get("local_files_only")
    unreachable = (
        None if offline else unreachable_because(file.repository, file.name, file.revision, most_bytes=file.most_bytes)
    )
    if unreachable is not None and not options.get("force_download"):
        # What the cache holds is used without a connection. By itself huggingface_hub tries again for half a minute.
        options["local_files_only"] = True
    try:
        if unreachable is None or options.get("local_files_only"):
            return Path(library.hf_hub_download(file.repository, file.name, revision=file.revision, **options))
        reason = ""
    except Exception as error:  # noqa: BLE001 - of its HTTP library too, which is one of several
        reason = _reason(error, file)
    if offline:
        why = f"{reason} Offline mode is on and the cache does not hold it: fetch it once with HF_HUB_OFFLINE unset."
    elif unreachable is not None:
        why = (
            f"{constants.ENDPOINT} cannot be reached ({unreachable}), and the cache does not hold them. Check the "
            "connection (HF_ENDPOINT names another host), or give a file of your own."
        )
    else:
        why = f"{reason} HF_ENDPOINT names another host than {constants.ENDPOINT}."
    raise FileError(f"The {file.what} ({file.repository}) could not be had: {why}")


def _reason(error: Exception, file: RemoteFile) -> str:
    errors = _library("huggingface_hub.errors")
    if isinstance(error, errors.GatedRepoError):
        return "Its owner asks readers to agree to terms first: do so on its page, and log in with `hf auth login`."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "There is no such repository, or it is private and no token allows reading it: log in with "
            "`hf auth login`, or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"It has no branch, tag or commit called '{file.revision}'."
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return f"It has no file of that name, and '{hub_config.FILE_NAME}' and '{FILE_NAME}' are needed."
    return f"{first_line(error)} Try again."


def unreachable_because(
    repository: str, name: str, revision: str = "main", *, most_bytes: int | None = None
) -> str | None:
    """Why the hub gives no answer at all; None if it does, whatever it says.

    Raises:
        CheckpointError: if the file is larger than `most_bytes`.
    """
    library, errors = _library("huggingface_hub"), _library("huggingface_hub.errors")
    try:
        found = library.get_hf_file_metadata(
            library.hf_hub_url(repository, name, revision=revision), timeout=CONNECTION_SECONDS
        )
    except errors.HfHubHTTPError:
        return None
    except Exception as error:  # noqa: BLE001 - of its HTTP library, which is one of several
        return first_line(error).rstrip(".")
    if most_bytes is not None and (found.size or 0) > most_bytes:
        raise CheckpointError(
            f"'{name}' of '{repository}' has {found.size} bytes, and {most_bytes} are the most it may have. It was not "
            "downloaded."
        )
    return None


def first_line(error: BaseException) -> str:
    """What an error of the hub's library says, without the advice that follows."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _problem_of_config(path: Path) -> str | None:
    """None: what is in it is for `HubConfig.read` to judge, in its own words."""
    return None if path.stat().st_size else "It is empty."


def _problem(path: Path) -> str | None:
    # huggingface_hub keeps a large file under its ETag, which is its SHA-256, and gives a link to that. Where it cannot
    # make links, or a mirror has other ETags, the file's structure is all there is to check.
    expected = path.resolve().name
    if _SHA256.fullmatch(expected):
        found = _sha256(path)
        if found != expected:
            return f"its SHA-256 is {found}, and {expected} was expected."
    try:
        read_tensors(path)
    except CheckpointError as error:
        return str(error)
    return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while part := handle.read(_READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


@cache
def imagenet_class_names() -> tuple[str, ...]:
    """ImageNet-1k's 1000 classes in the order of the logits: short English names, as torchvision has them."""
    return tuple((files("repvgg.data") / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines())
