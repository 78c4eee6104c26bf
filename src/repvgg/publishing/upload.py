"""The way to the hub: huggingface_hub's, with its errors in sentences. No token is in any of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from repvgg.base.dependencies import require
from repvgg.base.errors import InputError
from repvgg.checkpoints.hub import first_line, unreachable_because
from repvgg.checkpoints.repository import Repository

Result = TypeVar("Result")

LOG_IN = (
    "Make a token with the permission to write at https://huggingface.co/settings/tokens, and log in with "
    "`hf auth login`, or set HF_TOKEN."
)


def _library(module: str) -> Any:
    return require(module, extra="hub", purpose="Publishing on the hub")


class Account:
    """Whoever a token belongs to; nothing is made or changed on the hub before `upload`.

    Args:
        repository: where to.
        token: theirs; the one that huggingface_hub finds (HF_TOKEN, `hf auth login`) if None.

    Raises:
        MissingDependencyError: if huggingface_hub is not installed.
        InputError: if there is no token, the hub does not know it, or cannot be reached.
    """

    def __init__(self, repository: Repository, token: str | None = None) -> None:
        library, constants = _library("huggingface_hub"), _library("huggingface_hub.constants")
        self._repository = repository.name
        self._token = token or library.get_token()
        self._endpoint = constants.ENDPOINT
        if constants.HF_HUB_OFFLINE:
            raise InputError(
                "Offline mode is on (HF_HUB_OFFLINE), and publishing needs the hub. Unset it; dry_run=True "
                "shows what would be published."
            )
        if self._token is None:
            raise InputError(f"There is no token to publish '{self._repository}' with. {LOG_IN}")
        why = unreachable_because(self._repository, "README.md")
        if why is not None:
            raise InputError(
                f"{self._endpoint} cannot be reached ({why}). Check the connection (HF_ENDPOINT names another host)."
            )
        from repvgg import __version__

        self._api = library.HfApi(token=self._token, library_name="repvgg", library_version=__version__)
        self._told(self._api.whoami)

    def upload(
        self, folder: Path, names: Sequence[str], *, replaceable: Sequence[str], private: bool, message: str
    ) -> tuple[str, str]:
        """Makes the repository if there is none yet, and puts files into it in one commit.

        Args:
            names: of the files in `folder`.
            replaceable: files of the repository that go away if they are not among `names`.
            private: make it so that only its owner sees it.

        Returns:
            The repository's address, and the commit.

        Raises:
            InputError: if that is not allowed, or the hub turns it down. Files appear all together, or none does.
        """
        library = _library("huggingface_hub")

        def work() -> tuple[str, str]:
            url = self._api.create_repo(self._repository, private=private or None, exist_ok=True)
            if private and not self._api.repo_info(self._repository).private:
                raise InputError(
                    f"'{self._repository}' is there already, and everybody can see it; nothing was uploaded. Make it "
                    "private on its page, or leave out `private`."
                )
            there = set(self._api.list_repo_files(self._repository))
            additions = [library.CommitOperationAdd(name, str(folder / name)) for name in names]
            deletions = [
                library.CommitOperationDelete(name) for name in replaceable if name in there and name not in names
            ]
            commit = self._api.create_commit(self._repository, [*deletions, *additions], commit_message=message)
            return str(url), str(commit.oid)

        return self._told(work)

    def _told(self, work: Callable[[], Result]) -> Result:
        """What goes wrong in the work becomes one sentence.

        The library's own error is dropped, not chained: the request that hangs on it has the token in its headers, and
        whatever collects errors with all that hangs on them would have it.
        """
        try:
            return work()
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - of its HTTP library too, which is one of several
            problem = InputError(self._sentence(error).replace(str(self._token), "<token>"))
        raise problem

    def _sentence(self, error: BaseException) -> str:
        # What happens in one of its threads is told as something else that it caused.
        while error.__cause__ is not None and getattr(error, "response", None) is None:
            error = error.__cause__
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 401:
            return f"The hub does not accept the token. {LOG_IN}"
        if status == 403:
            return (
                f"The token may not write to '{self._repository}': {_said(error)} Is the owner's name right, and the "
                f"token one that may write? {LOG_IN}"
            )
        if status is not None:
            return f"The hub turned '{self._repository}' down ({status}): {_said(error)}"
        return (
            f"'{self._repository}' was not published: {_said(error)} Is {self._endpoint} the hub (HF_ENDPOINT), and "
            "the connection good? The same command may be repeated."
        )


def _said(error: BaseException) -> str:
    """The hub's own words if there are any."""
    text = " ".join((getattr(error, "server_message", None) or first_line(error)).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."
