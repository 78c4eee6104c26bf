"""Weights by name, from a local server that speaks the hub's protocol: cold, cached, offline, broken off, damaged."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import assert_same_values, run_python, values_of
from hub_server import COMMIT, Hub, running, use, use_cache
from repvgg.base.errors import CheckpointError, FileError, InputError, MissingDependencyError, UnknownNameError
from repvgg.base.metadata import Preprocessing
from repvgg.checkpoints import hub as repvgg_hub
from repvgg.checkpoints import save_checkpoint
from repvgg.checkpoints.hub import PRETRAINED, fetch, imagenet_class_names
from repvgg.checkpoints.zoo import create_model
from repvgg.models.metadata import get_metadata
from repvgg.models.variants import VARIANTS

huggingface_hub = pytest.importorskip("huggingface_hub")
constants = pytest.importorskip("huggingface_hub.constants")
safetensors = pytest.importorskip("safetensors.numpy")

REPOSITORY = "timm/repvgg_a0.rvgg_in1k"
SMALL: bytes = safetensors.save({"stem.conv_kxk.conv.weight": np.arange(6, dtype=np.float32)}, {"format": "pt"})


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_cache(tmp_path / "hub", monkeypatch)


@pytest.fixture
def server(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running(Hub(REPOSITORY, SMALL)) as hub:
        use(hub, monkeypatch)
        yield hub
        huggingface_hub.close_session()


def _spoil(path: Path) -> None:
    blob = path.resolve()
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)


def test_cold_then_cached(server: Hub, cache: Path) -> None:
    path = fetch("RepVGG-A0")
    assert path.read_bytes() == SMALL
    assert path == cache / "models--timm--repvgg_a0.rvgg_in1k" / "snapshots" / COMMIT / "model.safetensors"
    assert server.downloads() == [None]
    assert fetch("RepVGG-A0") == path
    assert server.downloads() == [None]


def test_another_cache(server: Hub, tmp_path: Path) -> None:
    assert fetch("RepVGG-A0", cache_dir=tmp_path / "elsewhere").is_relative_to(tmp_path / "elsewhere")


def test_cached_and_offline(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch("RepVGG-A0")
    asked = len(server.requests)
    assert fetch("RepVGG-A0", local_files_only=True) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("RepVGG-A0") == path
    assert len(server.requests) == asked


def test_cached_and_the_hub_gone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Hub(REPOSITORY, SMALL)) as hub:
        use(hub, monkeypatch)
        path = fetch("RepVGG-A0")
    huggingface_hub.close_session()
    assert fetch("RepVGG-A0") == path


def test_offline_and_not_cached(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"local_files_only": True}, {}):
        with pytest.raises(FileError, match=r"RepVGG-A0 \(timm/repvgg_a0.*Offline mode is on and the cache does not"):
            fetch("RepVGG-A0", **options)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not server.requests


def test_broken_off_and_resumed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the library's own chunks, so the first one has arrived when the connection breaks.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    content = safetensors.save({"weight": np.arange(3000, dtype=np.float32)})
    with running(Hub(REPOSITORY, content, cut=2)) as hub:
        use(hub, monkeypatch)
        assert fetch("RepVGG-A0").read_bytes() == content
        first, second, third = hub.downloads()
        assert first is None
        assert second is not None
        assert third is not None
        positions = [int(asked.removeprefix("bytes=").removesuffix("-")) for asked in (second, third)]
        assert 1000 <= positions[0] < positions[1] < len(content)
    huggingface_hub.close_session()


def test_damaged_on_the_way(server: Hub, caplog: pytest.LogCaptureFixture) -> None:
    server.spoil = 1
    assert fetch("RepVGG-A0").read_bytes() == SMALL
    assert len(server.downloads()) == 2
    assert "damaged and are downloaded again: its SHA-256 is" in caplog.text


def test_damaged_every_time(server: Hub) -> None:
    server.spoil = 100
    with pytest.raises(CheckpointError, match=rf"{server.published} was expected.*mirror"):
        fetch("RepVGG-A0")
    assert len(server.downloads()) == 2


def test_a_damaged_cache(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = fetch("RepVGG-A0")
    _spoil(path)
    with pytest.raises(CheckpointError, match=rf"cached file .* is damaged.*delete '{path.resolve()}'"):
        fetch("RepVGG-A0", local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="offline mode is on"):
        fetch("RepVGG-A0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert fetch("RepVGG-A0").read_bytes() == SMALL
    assert len(server.downloads()) == 2


@pytest.mark.parametrize("published", ["", "5-a-mirror-of-its-own"])
def test_whole_but_no_safetensors(cache: Path, monkeypatch: pytest.MonkeyPatch, published: str) -> None:
    with running(Hub(REPOSITORY, b"<html>Sign in first</html>", published)) as hub:
        use(hub, monkeypatch)
        with pytest.raises(CheckpointError, match="web page"):
            fetch("RepVGG-A0")
    huggingface_hub.close_session()


def test_a_repository_that_is_not_there(server: Hub) -> None:
    with pytest.raises(FileError, match=r"RepVGG-A1 \(timm/repvgg_a1.rvgg_in1k\) could not be had: .*HF_ENDPOINT"):
        fetch("RepVGG-A1")


def test_variants_without_weights(server: Hub) -> None:
    with pytest.raises(InputError, match=r"no pretrained weights of RepVGG-B3g2.*RepVGG-A0, .*RepVGG-D2se"):
        fetch("RepVGG-B3g2")
    with pytest.raises(UnknownNameError, match="Did you mean RepVGG-A0"):
        fetch("repvgg-a")
    assert not server.requests


def test_every_repository() -> None:
    assert PRETRAINED["RepVGG-B1g4"] == "timm/repvgg_b1g4.rvgg_in1k"
    assert PRETRAINED["RepVGG-D2se"] == "timm/repvgg_d2se.rvgg_in1k"
    others = {name for name in set(VARIANTS) - set(PRETRAINED) if name.startswith("RepVGG")}
    assert others == {"RepVGG-B1g2", "RepVGG-B2g2", "RepVGG-B3g2", "RepVGGplus-L2pse"}


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'repvgg\[hub\]'"):
        fetch("RepVGG-A0")


def test_the_users_settings(tmp_path: Path) -> None:
    """`HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` as the environment gives them, in processes of their own."""
    code = "from repvgg.checkpoints.hub import fetch; print(fetch('RepVGG-A0'))"
    with running(Hub(REPOSITORY, SMALL)) as hub, pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_ENDPOINT", hub.address)
        environment.setenv("HF_HOME", str(tmp_path))
        environment.delenv("HF_HUB_CACHE", raising=False)
        path = Path(run_python(code).strip())
        assert path.is_relative_to(tmp_path)
        assert hub.downloads() == [None]
        asked = len(hub.requests)
        environment.setenv("HF_HUB_OFFLINE", "1")
        assert Path(run_python(code).strip()) == path
        assert len(hub.requests) == asked


def test_a_model_by_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = create_model("RepVGG-A0")
    content = save_checkpoint(original, tmp_path / "model.safetensors", "timm").read_bytes()
    with running(Hub(REPOSITORY, content)) as hub:
        use(hub, monkeypatch)
        model = create_model("RepVGG-A0", weights="imagenet")
        assert_same_values(values_of(original), values_of(model))
        metadata = get_metadata(model)
        assert (metadata.variant, metadata.form) == ("RepVGG-A0", "training")
        assert metadata.preprocessing == Preprocessing()
        assert metadata.class_names == imagenet_class_names()
        assert metadata.source == "timm/repvgg_a0.rvgg_in1k on the Hugging Face hub"

        own = create_model("RepVGG-A0", 5, (96, 96, 3), deploy=True, weights="imagenet")
        assert own.output_shape == (None, 5)
        metadata = get_metadata(own)
        assert (metadata.form, metadata.class_names) == ("deploy", None)
        assert metadata.preprocessing == Preprocessing(crop=96, resize=110)
        assert hub.downloads() == [None]
    huggingface_hub.close_session()


def test_the_preprocessing_of_the_published_accuracies() -> None:
    from repvgg.checkpoints import zoo

    assert zoo._preprocessing(VARIANTS["RepVGG-B1"], (None, None, 3)) == Preprocessing(224, 256)
    assert zoo._preprocessing(VARIANTS["RepVGG-D2se"], (None, None, 3)) == Preprocessing(320, 320)


def test_class_names() -> None:
    names = imagenet_class_names()
    assert len(names) == 1000
    assert all(name == name.strip() and name for name in names)
    assert not [name for name, count in Counter(names).items() if count > 1]
    known = {
        0: "tench",
        1: "goldfish",
        134: "crane bird",
        207: "golden retriever",
        282: "tiger cat",
        388: "giant panda",
        517: "crane",
        620: "laptop",
        817: "sports car",
        963: "pizza",
        970: "alp",
        999: "toilet tissue",
    }
    assert {index: names[index] for index in known} == known


def test_the_checksum_is_that_of_the_whole_file(tmp_path: Path) -> None:
    content: Any = os.urandom(5 * 2**20 + 3)
    (tmp_path / "file").write_bytes(content)
    assert repvgg_hub._sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
