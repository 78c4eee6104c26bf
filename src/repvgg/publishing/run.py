"""`push`: a parcel is built and proved in a folder, and only then put on the hub."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from repvgg.base.files import atomic_output, scratch_folder
from repvgg.publishing.parcel import OWN_FILES, build_parcel
from repvgg.publishing.request import check_request
from repvgg.publishing.subject import find_subject
from repvgg.publishing.upload import Account
from repvgg.reporting.card import UNKNOWN_LICENSE


@dataclass(frozen=True)
class Push:
    """What was published, or would be.

    Attributes:
        repository: "user/name".
        files: bytes by name.
        what: the files for people, by name.
        timm_name: what timm calls the network; None if timm cannot build it.
        left_out: what is missing, and why, a sentence each.
        url: the repository's page; None after a dry run.
        commit: what the files are in; None after a dry run.
    """

    repository: str
    files: Mapping[str, int]
    what: Mapping[str, str]
    timm_name: str | None
    left_out: tuple[str, ...]
    url: str | None = None
    commit: str | None = None


def push(
    network: Any,
    repository: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    output: str | Path | None = None,
    license: str = UNKNOWN_LICENSE,  # noqa: A002 - the hub's own word
    message: str | None = None,
    token: str | None = None,
    out: Console | None = None,
) -> Push:
    """Publishes a classifier on the Hugging Face hub, for `repvgg.create_model` and `timm.create_model` to load.

    The repository gets the weights as `model.safetensors` in timm's names with timm's `config.json` (network, class
    names, preprocessing), both forms as Keras files, an ONNX file if the extra `onnx` is installed, and a model card.
    Every file is read back and compared with the network before anything is uploaded, in one commit. What an earlier
    push left there and this one has not goes away; other files stay.

    Args:
        network: a run's folder, a `.keras` file, a checkpoint, or a `keras.Model` that this package built.
        repository: "user/name"; it is made if it does not exist.
        private: only its owner may see it.
        dry_run: build and prove everything, and upload nothing. Neither a token nor huggingface_hub is needed.
        output: a new or empty folder that keeps the files.
        license: of the weights, in the hub's words, such as "apache-2.0".
        message: of the commit.
        token: of the hub, with the permission to write; the one of `hf auth login` or HF_TOKEN if None.
        out: where to show how far it is; nowhere if None.

    Raises:
        InputError: if the repository cannot be called so, there is no token, it is not allowed to write, or the hub
            cannot be reached.
        FileError: if there is no such run or file.
        MissingDependencyError: if huggingface_hub is not installed.
        VerificationError: if a file is not the network; nothing is uploaded.

    Example:
        >>> repvgg.push("runs/RepVGG-A0-flowers", "user/flowers", dry_run=True).files  # doctest: +SKIP
        {'model.safetensors': 36486604, 'config.json': 948, 'model.keras': ...}
    """
    console = out or Console(quiet=True)
    where = check_request(network, repository, output)
    account = None if dry_run else Account(where, token)
    subject = find_subject(network)
    with _folder(output) as folder:
        parcel = build_parcel(subject, where.name, folder, license_name=license, out=console)
        sizes = dict(parcel.sizes)
        url, commit = None, None
        if account is not None:
            # How far it is, huggingface_hub shows, byte by byte.
            url, commit = account.upload(
                folder,
                list(parcel.files),
                replaceable=OWN_FILES,
                private=private,
                message=message or f"{parcel.title} in {len(sizes)} files",
            )
    return Push(where.name, sizes, parcel.files, parcel.timm_name, tuple(parcel.left_out), url, commit)


@contextmanager
def _folder(output: str | Path | None) -> Iterator[Path]:
    if output is None:
        with scratch_folder() as folder:
            yield folder
        return
    with atomic_output(Path(output).resolve()) as folder:
        folder.mkdir()
        yield folder
