"""What the server answers: as `repvgg predict` does, or one sentence."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import CLASSES, PREPROCESSING, best, error, painted, write_colours
from fastapi.testclient import TestClient

import repvgg
from hostile_images import KINDS
from repvgg.base.errors import InputError
from repvgg.evaluation.prediction import predict
from repvgg.runners.function import FunctionRunner
from repvgg.serving import Limits, create_app


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colours(tmp_path_factory.mktemp("models") / "colours.onnx")


@contextmanager
def served(*files: Path, **limits: Any) -> Iterator[TestClient]:
    app = create_app({file.name: repvgg.load_runner(file) for file in files}, Limits(**limits))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """Two networks, one of fixed batches, of which the other is another order of classes."""
    other = write_colours(tmp_path_factory.mktemp("models") / "fixed.onnx", batch=4, classes=("ROT", "GRÜN", "BLAU"))
    with served(file, other, megapixels=0.5) as client:
        yield client


def ask(client: TestClient, content: bytes, name: str = "picture.png", **query: Any) -> Any:
    return client.post("/predict", files={"file": (name, content)}, params=query)


def test_several_networks_answer_side_by_side(client: TestClient) -> None:
    answer = ask(client, painted("lime"), "wiese.png").json()
    assert (answer["image"], answer["width"], answer["height"]) == ("wiese.png", 40, 32)
    assert [one["model"] for one in answer["models"]] == ["colours.onnx", "fixed.onnx"]
    assert (best(answer), best(answer, 1)) == (CLASSES[1], "GRÜN")
    for one in answer["models"]:
        probabilities = [item["probability"] for item in one["classes"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1)
        assert 0 < one["milliseconds"] <= answer["milliseconds"]


def test_networks_and_numbers_of_classes_can_be_chosen(client: TestClient) -> None:
    answer = ask(client, painted("blue"), top=1, model="fixed.onnx").json()
    assert [(one["model"], len(one["classes"])) for one in answer["models"]] == [("fixed.onnx", 1)]
    assert best(answer) == "BLAU"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_is_answered_as_predict_does_or_refused(
    kind: str, client: TestClient, file: Path, tmp_path: Path
) -> None:
    made = KINDS[kind]
    path = tmp_path / f"picture{made.suffix}"
    path.write_bytes(made.make(np.random.default_rng(5)))
    response = ask(client, path.read_bytes(), path.name)
    if made.verdict == "broken":
        assert response.status_code == 422
        assert re.search(made.reason, error(response))
        assert "BytesIO" not in error(response)
        return
    (expected,) = predict(repvgg.load_runner(file), [path])
    found = response.json()["models"][0]["classes"]
    assert tuple(item["class"] for item in found) == expected.classes
    np.testing.assert_allclose([item["probability"] for item in found], expected.probabilities, rtol=1e-6)


@pytest.mark.parametrize(
    ("send", "status", "message"),
    [
        (lambda client: ask(client, painted("red"), model="colour.onnx"), 404, "There are: colours.onnx, fixed.onnx"),
        (lambda client: ask(client, painted("red"), top=0), 422, r"query\.top"),
        (lambda client: client.post("/predict"), 422, r"body\.file: Field required"),
        (lambda client: client.post("/predict", data={"file": "text"}), 422, r"body\.file"),
        (lambda client: ask(client, painted("red", (1000, 501))), 422, "1000 x 501 pixels, above the limit of 500000"),
        (lambda client: client.get("/predict"), 405, "Method Not Allowed"),
        (lambda client: client.get("/app.js/../../app.py"), 404, "Not Found"),
        (lambda client: client.get("/?file=app.py"), 200, ""),
    ],
)
def test_mistakes_are_one_sentence(client: TestClient, send: Callable[..., Any], status: int, message: str) -> None:
    response = send(client)
    assert response.status_code == status
    if status == 200:
        assert response.text.startswith("<!doctype html>")
    else:
        assert re.search(message, error(response))


def chunks(size: int) -> Iterator[bytes]:
    for _ in range(size // 1000):
        yield bytes(1000)


def test_large_requests_are_refused_with_and_without_their_size(file: Path) -> None:
    with served(file, megabytes=0.1) as client:
        assert ask(client, painted("red")).status_code == 200
        for content in (bytes(100_000), chunks(200_000)):
            response = client.post("/predict", content=content, headers={"Content-Type": "multipart/form-data"})
            if isinstance(content, bytes):
                response = ask(client, content)
            assert response.status_code == 413
            assert "limit of 0.1 MB" in error(response)


class Waiting(FunctionRunner):
    """A network that takes its time once it is served."""

    def __init__(self, seconds: float) -> None:
        super().__init__(self._run, "slow")
        self.metadata = repvgg.Metadata(class_names=CLASSES, preprocessing=PREPROCESSING)
        self.seconds, self.broken = seconds, False
        self.batches: list[int] = []

    def _run(self, images: np.ndarray) -> np.ndarray:
        if self.batches:
            time.sleep(self.seconds)
        self.batches.append(len(images))
        return np.full((len(images), 3), np.nan if self.broken else 1.0)


@contextmanager
def slow(pause: float, **limits: Any) -> Iterator[tuple[TestClient, Waiting]]:
    network = Waiting(pause)
    app = create_app({"slow": network}, Limits(**limits, batch=1))
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client, network


def test_an_answer_that_takes_too_long() -> None:
    with slow(0.5, seconds=0.2) as (client, _):
        response = ask(client, painted("red"))
        assert response.status_code == 504
        assert "not been answered within 0.2 seconds" in error(response)


def test_too_many_requests() -> None:
    with slow(0.5, requests=1) as (client, _), ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: ask(client, painted("red")), range(4)))
        refused = [response for response in responses if response.status_code == 503]
        assert 1 <= len(refused) <= 3
        assert refused[0].headers["retry-after"] == "1"
        assert "busy with 1 requests" in error(refused[0])
        assert client.get("/health").status_code == 200


def test_concurrent_requests_go_through_the_network_together(file: Path) -> None:
    network = Waiting(0.2)
    colours = ["red", "lime", "blue"] * 4
    app = create_app({"slow": network, "colours": repvgg.load_runner(file)}, Limits(batch=4, window=0.1))
    with TestClient(app) as client, ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda colour: ask(client, painted(colour)).json(), colours))
    assert [best(answer, 1) for answer in answers] == list(CLASSES) * 4
    asked = network.batches[3:]  # 1, 2 and 4 come before, when it is made ready
    assert sum(asked) == 12
    assert max(asked) > 1
    assert set(asked) <= {1, 2, 4}


def test_a_network_that_fails() -> None:
    with slow(0) as (client, network):
        network.broken = True
        response = ask(client, painted("red"))
        assert response.status_code == 500
        assert "values that are not finite" in error(response)
        network.broken = False
        assert ask(client, painted("red")).status_code == 200


def test_what_is_no_classifier_is_refused_at_the_start(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 outputs and 2 class names"):
        create_app({"colours": repvgg.load_runner(write_colours(tmp_path / "two.onnx", classes=("a", "b")))})
    with pytest.raises(InputError, match="is not a classifier"):
        create_app({"maps": FunctionRunner(lambda images: images, "maps")})
    with pytest.raises(InputError, match="`megapixels` must be above 0"):
        Limits(megapixels=0)


def test_no_name_but_the_machine_s_own(file: Path) -> None:
    """A web page whose name was made to point at this machine gets nothing."""
    with served(file, hosts=frozenset({"localhost", "::1"})) as client:
        for host, status in {"localhost:8000": 200, "[::1]:80": 200, "evil.example": 421, "[": 421, "": 421}.items():
            response = client.get("/health", headers={"Host": host})
            assert response.status_code == status, host
        assert "was asked as 'evil.example'" in error(client.get("/", headers={"Host": "evil.example"}))


def test_facts(client: TestClient) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "version": repvgg.__version__,
        "models": ["colours.onnx", "fixed.onnx"],
    }
    facts = client.get("/models").json()
    assert facts[0] == {
        "name": "colours.onnx",
        "classes": list(CLASSES),
        "image_size": 24,
        "precision": "float32",
        "batch": 8,
    }
    assert facts[1]["batch"] == 4


def test_metrics(file: Path) -> None:
    with served(file) as client:
        ask(client, painted("red"))
        ask(client, b"text")
        text = client.get("/metrics").text
    for line in (
        'repvgg_requests_total{status="200"} 1.0',
        'repvgg_requests_total{status="422"} 1.0',
        "repvgg_request_seconds_count 2.0",
        "repvgg_requests_in_work 0.0",
        'repvgg_waiting_pictures{model="colours.onnx"} 0.0',
        'repvgg_batch_pictures_sum{model="colours.onnx"} 1.0',
        'repvgg_batch_seconds_count{model="colours.onnx"} 1.0',
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("address", ["/", "/docs"])
def test_pages_fetch_nothing_from_elsewhere(client: TestClient, address: str) -> None:
    page = client.get(address)
    assert page.status_code == 200
    links = re.findall(r"""(?:src|href|url)(?:=|: )["']([^"']+)""", page.text)
    assert len(links) >= 3
    for link in links:
        assert "//" not in link
        if not link.startswith("data:"):
            assert client.get(link).status_code == 200, link
    if address == "/":
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_predict_is_described(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert {"200", "404", "413", "422", "503", "504"} <= set(operation["responses"])
    assert [parameter["name"] for parameter in operation["parameters"]] == ["top", "model"]
