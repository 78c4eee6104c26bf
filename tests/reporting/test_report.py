"""The page and the model card: what they say is true, and they need nothing beside them."""

import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from small_run import CLASSES, EPOCHS, make_images, small_model, small_settings

import repvgg
from repvgg.base.errors import FileError, InputError, OutputExistsError
from repvgg.reporting.card import card
from repvgg.reporting.facts import Facts, Mistake
from repvgg.reporting.page import page

yaml = pytest.importorskip("yaml")


class Page(HTMLParser):
    """What a reader finds on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        self.tags.append(tag)
        if tag == "section":
            self.sections.append(named["id"] or "")
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with its images beside it. Nobody may change it."""
    folder = tmp_path_factory.mktemp("run")
    data = make_images(folder / "data")
    repvgg.train(data, small_model(), output=folder / "run", **small_settings(report=True))
    return folder / "run"


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture(scope="module")
def facts(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return repvgg.report(run, tmp_path_factory.mktemp("page") / "page.html", speed=False)


def test_a_run_ends_with_its_page_and_card(run: Path) -> None:
    found = read(run / "report.html")
    assert found.sections == [
        "what",
        "use",
        "training",
        "confusion",
        "mistakes",
        "structure",
        "proof",
        "files",
        "repeat",
    ]
    for text in (
        *CLASSES,
        "best.keras",
        "deploy.keras",
        f"{EPOCHS} of {EPOCHS} epochs",
        "stage4_block0",
        "ms an image",
    ):
        assert text in found.text, text
    assert "repvgg train" not in (run / "README.md").read_text().split("---")[1]


def test_the_page_needs_nothing_beside_it(run: Path) -> None:
    found = read(run / "report.html")
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in found.addresses)
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    assert "default-src 'none'" in (run / "report.html").read_text()


def test_its_figures_are_those_of_evaluate(run: Path, facts: Facts) -> None:
    report = repvgg.evaluate(run / "best.keras", run.parent / "data")
    quality = facts.quality
    assert quality is not None
    assert (quality.images, quality.top1, quality.class_names) == (12, report.top1, CLASSES)
    np.testing.assert_array_equal(quality.confusion, report.confusion)
    assert quality.calibration_error == pytest.approx(report.expected_calibration_error)
    assert facts.gaps == ()
    training, deployed = facts.artifacts
    assert deployed.agreement == 1
    assert deployed.relative_error is not None
    assert 0 < deployed.relative_error < 1e-5
    assert deployed.size == (run / "deploy.keras").stat().st_size
    assert training.top1 == report.top1
    assert facts.proof is not None
    assert [row.name for row in facts.proof.blocks][:2] == ["stage0", "stage1_block0"]


def test_the_five_lines_run(run: Path, facts: Facts, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    text = page(facts)
    code = text.split("<pre>import repvgg")[1].split("</pre>")[0]
    from html import unescape

    monkeypatch.chdir(run)
    photo = run.parent / "data" / "val" / "red" / "0.jpg"
    exec("import repvgg" + unescape(code).replace("photo.jpg", str(photo)), {})
    assert capsys.readouterr().out.strip() in CLASSES


def test_exported_files_are_compared(copy: Path) -> None:
    pytest.importorskip("onnxruntime")
    repvgg.export(repvgg.load_model(copy / "deploy.keras"), copy / "model.onnx", with_preprocessing=True, batch=5)
    (copy / "broken.onnx").write_bytes((copy / "model.onnx").read_bytes()[:300])
    facts = repvgg.report(copy, force=True, out=Console(quiet=True))
    by_name = {one.name: one for one in facts.artifacts}
    assert list(by_name) == ["best.keras", "deploy.keras", "broken.onnx", "model.onnx"]
    assert by_name["model.onnx"].agreement == 1
    assert by_name["model.onnx"].runtime == "ONNX Runtime"
    assert by_name["broken.onnx"].problem is not None
    assert all(one.speed is not None for name, one in by_name.items() if name != "broken.onnx")
    assert facts.load is not None
    assert by_name["broken.onnx"].problem in read(copy / "report.html").text


def test_an_interrupted_run(copy: Path, tmp_path: Path) -> None:
    (copy / "deploy.keras").unlink()
    lines = (copy / "history.csv").read_text().splitlines(keepends=True)
    (copy / "history.csv").write_text("".join(lines[:3]))
    facts = repvgg.report(copy, tmp_path / "page.html", speed=False)
    assert facts.proof is not None
    assert facts.proof.passed
    assert len(facts.artifacts) == 2
    assert facts.artifacts[1].size is None
    assert [gap for gap in facts.gaps if f"2 of {EPOCHS} epochs are done" in gap]
    assert "What is missing here" in read(tmp_path / "page.html").text


def test_a_run_that_has_no_network_yet(copy: Path, tmp_path: Path) -> None:
    for path in copy.iterdir():
        if path.name not in ("run.json", "data.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    facts = repvgg.report(copy, tmp_path / "page.html", model_card=tmp_path / "README.md")
    assert facts.artifacts == ()
    found = read(tmp_path / "page.html")
    assert "there is none yet" in found.text
    assert "learning rate" in found.text


def test_images_that_are_gone_or_changed(copy: Path, tmp_path: Path) -> None:
    settings = (copy / "run.json").read_text()
    data = copy.parent / "other"
    (copy / "run.json").write_text(settings.replace(str(Path("data")), "nowhere"))
    facts = repvgg.report(copy, tmp_path / "page.html", speed=False)
    assert facts.quality is None
    assert "--data FOLDER" in facts.gaps[0]
    make_images(data)
    facts = repvgg.report(copy, tmp_path / "page.html", data=data, speed=False, force=True)
    assert facts.quality is not None
    assert facts.quality.data == str(data)


def test_a_network_by_itself(run: Path, tmp_path: Path) -> None:
    facts = repvgg.report(repvgg.load_model(run / "best.keras"), tmp_path / "page.html", speed=False)
    assert facts.proof is not None
    assert facts.proof.passed
    assert facts.training is None
    assert "--data FOLDER" in facts.gaps[0]
    with pytest.raises(InputError, match=r"Give `output`"):
        repvgg.report(repvgg.load_model(run / "best.keras"))


def test_nothing_is_replaced_or_half_written(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (copy / "report.html").read_bytes()
    with pytest.raises(OutputExistsError):
        repvgg.report(copy)
    with pytest.raises(InputError, match=r"ends in '\.html'"):
        repvgg.report(copy, tmp_path / "page.pdf")
    with pytest.raises(FileError, match=r"without 'run\.json'"):
        repvgg.report(copy / "checkpoints")
    with pytest.raises(FileError, match="does not exist"):
        repvgg.report(copy / "nothing")

    def fails(facts: Facts) -> str:
        raise RuntimeError("on the way")

    monkeypatch.setattr("repvgg.reporting.run.page", fails)
    with pytest.raises(RuntimeError):
        repvgg.report(copy, force=True, speed=False)
    assert (copy / "report.html").read_bytes() == before
    assert not list(copy.glob(".report*"))


HOSTILE = ("<script>alert(1)</script>", "a|b\n---\nlicense: mit", '"quoted": [x]')


def hostile(facts: Facts) -> Facts:
    """Names that mean something in HTML, Markdown and YAML."""
    assert facts.quality is not None
    mistakes = (Mistake(np.full((32, 32, 3), 0.5), HOSTILE[0], HOSTILE[1], 0.9, "<b>.jpg"),)
    return replace(
        facts,
        name=HOSTILE[2],
        metadata=replace(facts.metadata, class_names=HOSTILE, source=HOSTILE[0], variant=HOSTILE[1]),
        quality=replace(facts.quality, class_names=HOSTILE, mistakes=mistakes),
        gaps=(HOSTILE[0],),
    )


def test_hostile_names_are_text(facts: Facts) -> None:
    found = Page(page(hostile(facts)))
    assert "script" not in found.tags
    assert HOSTILE[0] in found.text
    assert found.sections[0] == "gaps"
    text = card(hostile(facts), license_name="apache-2.0")
    _, header, body = text.split("\n---\n", 2)[0], *text.removeprefix("---\n").split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert values["license"] == "apache-2.0"
    assert values["model-index"][0]["name"] == HOSTILE[1]
    assert "<script" not in body.replace("\\<script", "")


def test_the_card_says_what_the_page_says(facts: Facts) -> None:
    assert facts.quality is not None
    text = card(facts)
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    values = yaml.safe_load(header)
    assert values["library_name"] == "repvgg"
    assert values["license"] == "unknown"
    (result,) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "name": "top-1", "value": pytest.approx(facts.quality.top1)}]
    assert result["dataset"]["name"] == "data"
    assert "| `deploy.keras` | Keras, deploy form |" in body


def test_many_classes_are_listed_by_what_is_worst(facts: Facts) -> None:
    assert facts.quality is not None
    names = tuple(f"class {place}" for place in range(60))
    confusion = np.diag(np.arange(60) % 7 + 1)
    confusion[3, 4] = 9
    found = Page(page(replace(facts, quality=replace(facts.quality, class_names=names, confusion=confusion))))
    assert "the worst 30 of 60" in found.text
    assert "class 3 class 4 9" in found.text


def test_int8_layer_by_layer(facts: Facts) -> None:
    names = ("name", "spread", "before", "after", "agreement_before", "agreement_after")
    rows = (("stage0", None, 21.4, 43.2, 0.75, 1.0), ("head", 2.5, None, -3.0, None, None))
    layers = [dict(zip(names, row, strict=True)) for row in rows]
    told = {"scheme": "weights per channel", "processor": "portable", "layers": layers}
    one = replace(facts.artifacts[1], name="int8.onnx", metadata=replace(facts.metadata, quantization=told))
    found = Page(page(replace(facts, artifacts=(*facts.artifacts, one))))
    assert "int8" in found.sections
    assert "stage0 21 43 25 % 0 % -" in found.text
    assert "head exact -3 - - 2.5" in found.text


def test_curves_survive_what_is_not_a_number(facts: Facts) -> None:
    assert facts.training is not None
    rows = tuple({**row, "cross_entropy": float("nan")} for row in facts.training.history[:1])
    text = page(replace(facts, training=replace(facts.training, history=rows)))
    assert "nan" not in text.split('id="training"')[1].split("</section>")[0]
