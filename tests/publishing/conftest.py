"""A hub on loopback whose owner is logged in, and a run to publish there."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import make_run, name_tiny, tiny

from hub_server import Hub, logged_in


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub without repositories."""
    with logged_in(tmp_path, monkeypatch) as hub:
        yield hub


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    name_tiny(monkeypatch)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, which stays as it is."""
    with pytest.MonkeyPatch.context() as patch:
        name_tiny(patch)
        return make_run(tmp_path_factory.mktemp("runs") / "RepVGG-tiny-flowers", tiny())
