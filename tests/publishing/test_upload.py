"""What the hub may say to whoever writes: each a sentence, and the token in none of them."""

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from command_line import Run, runner

import repvgg
from hub_server import TOKEN, Hub, use, use_cache
from repvgg.base.errors import InputError, MissingDependencyError
from repvgg.checkpoints.repository import Repository
from repvgg.publishing.upload import Account

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture
def parcel(tmp_path: Path) -> Path:
    """Files that are quickly made."""
    folder = tmp_path / "parcel"
    folder.mkdir()
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def upload(repository: str, folder: Path, token: str | None = None) -> tuple[str, str]:
    names = sorted(file.name for file in folder.iterdir())
    account = Account(Repository(repository), token)
    return account.upload(folder, names, replaceable=["model.onnx"], private=False, message="Something")


@pytest.mark.parametrize(
    ("refuse", "repository", "message"),
    [
        ({"/api/whoami-v2": (401, f"Invalid: {TOKEN}")}, "user/x", "The hub does not accept the token.*hf auth login"),
        ({}, "others/x", "The token may not write to 'others/x': You don't have the rights to create.*hf auth login"),
        ({"/commit/": (403, f"{TOKEN} may read")}, "user/x", "may not write to 'user/x': <token> may read"),
        ({"/preupload/": (400, f"too large for {TOKEN}")}, "user/x", r"down \(400\): too large for <token>"),
        ({"/store/": (400, f"not for {TOKEN}")}, "user/x", r"turned 'user/x' down \(400\): not for <token>"),
        ({"/commit/": (507, "no space is left")}, "user/x", r"turned 'user/x' down \(507\): no space is left"),
    ],
)
def test_refusals_are_sentences_without_the_token(
    server: Hub,
    parcel: Path,
    refuse: Mapping[str, tuple[int, str]],
    repository: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    server.refuse.update(refuse)
    with pytest.raises(InputError, match=message) as caught:
        upload(repository, parcel)
    # Nothing hangs on it that holds the request with its headers.
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    printed = capfd.readouterr()
    told = [*traceback.format_exception(caught.value), printed.out, printed.err, caplog.text]
    assert TOKEN not in "".join(told)
    # What was begun is not seen by anybody.
    assert all(set(commits[-1].files) == {".gitattributes"} for commits in server.repositories.values())


def test_a_command_ends_in_one_sentence(server: Hub, finished: Path, run: Run) -> None:
    server.refuse["/commit/"] = (403, f"{TOKEN} may read")
    result = run("push", finished, "user/x")
    assert (result.status, result.output) == (2, "")
    assert "Error: The token may not write to 'user/x': <token> may read." in result.sentence
    assert TOKEN not in result.errors


def test_one_commit(server: Hub, parcel: Path) -> None:
    url, commit = upload("user/x", parcel)
    assert (url, commit) == (f"{server.address}/user/x", server.repositories["user/x"][-1].oid)
    assert server.repositories["user/x"][-1].message == "Something"
    assert server.files("user/x")["model.safetensors"] == b"weights"
    # Once more: what is there already is not sent again.
    before = len([path for _, path, _ in server.requests if path.startswith("/store/")])
    upload("user/x", parcel)
    assert len([path for _, path, _ in server.requests if path.startswith("/store/")]) == before == 1


def test_nobody_is_logged_in(server: Hub, parcel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match=r"There is no token to publish 'user/x' with.*hf auth login"):
        upload("user/x", parcel)
    assert not server.requests
    upload("user/x", parcel, token=TOKEN)


def test_without_a_connection(parcel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_cache(tmp_path / "hub", monkeypatch)
    use(Hub(address="http://127.0.0.1:9"), monkeypatch)
    with pytest.raises(InputError, match=r"http://127.0.0.1:9 cannot be reached \("):
        upload("user/x", parcel, TOKEN)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"Offline mode is on.*dry_run=True shows"):
        upload("user/x", parcel, TOKEN)


def test_without_huggingface_hub(finished: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'repvgg\[hub\]'"):
        repvgg.push(finished, "user/x")
    monkeypatch.setattr("repvgg.cli.terminal.start_keras", lambda: pytest.fail("Keras was started for nothing."))
    assert "repvgg[hub]" in run("push", finished, "user/x").sentence
