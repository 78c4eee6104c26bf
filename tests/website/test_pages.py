"""How pages get from the repository to the site, and what stops them."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

import repvgg
import website.reference
from repvgg.cli.commands import app
from website.commands import command_pages
from website.links import check_links
from website.navigation import check_navigation, navigation, with_generated
from website.pages import DOCS, ROOT, lines_outside_code, section, stage
from website.reference import python_pages

CONFIG = ROOT / "website" / "mkdocs.yml"


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("staged")
    stage(folder, {**python_pages(), **command_pages()})
    return folder


def test_every_page_is_in_a_menu(staged: Path) -> None:
    config = with_generated(CONFIG.read_text(encoding="utf-8"), {**python_pages(), **command_pages()})
    menus = navigation(config)
    assert check_navigation(menus, staged) == []
    (staged / "source" / "one.md").touch()
    (staged / "new.md").touch()
    try:
        assert check_navigation(menus, staged) == ["new.md is in no menu. Add it to `nav` in website/mkdocs.yml."]
    finally:
        (staged / "new.md").unlink()
    assert check_navigation([*menus, {"Gone": "gone.md"}, "index.md"], staged) == [
        "website/mkdocs.yml names index.md twice.",
        "website/mkdocs.yml names gone.md, which is not a page.",
    ]


def test_links_lead_to_pages_of_the_site(staged: Path) -> None:
    export = (staged / "export.md").read_text(encoding="utf-8")
    assert "(source/benchmarks/results/export_all-json.md)" in export
    readme = (staged / "project" / "readme.md").read_text(encoding="utf-8")
    assert "(../int8.md)" in readme
    assert "(../demo.png)" in readme
    start = (staged / "index.md").read_text(encoding="utf-8")
    assert "(demo.png)" in start
    assert "repvgg.reparameterize(result.model)" in start
    listing = (staged / "source" / "examples" / "serving" / "index.md").read_text(encoding="utf-8")
    assert "[examples/serving/onnx_runtime.py](onnx_runtime-py.md)" in listing
    code = (staged / "source" / "examples" / "serving" / "onnx_runtime-py.md").read_text(encoding="utf-8")
    assert (ROOT / "examples" / "serving" / "onnx_runtime.py").read_text(encoding="utf-8").rstrip("\n") in code


def test_notebooks_are_pages(staged: Path) -> None:
    page = (staged / "tutorials" / "checkpoint-to-phone.md").read_text(encoding="utf-8")
    assert page.startswith("# A checkpoint from elsewhere")
    assert "\n\n```python\nfrom pathlib import Path\n" in page
    assert "(../source/examples/serving/litert_single_thread-py.md)" in page
    assert "(../int8.md)" in page
    readme = (staged / "project" / "readme.md").read_text(encoding="utf-8")
    assert "(../tutorials/digits.md)" in readme


def test_code_is_left_as_it_is(staged: Path) -> None:
    for page in DOCS.glob("*.md"):
        if page.name == "index.md":
            continue
        before = page.read_text(encoding="utf-8").split("\n")
        after = (staged / page.name).read_text(encoding="utf-8").split("\n")
        outside = {number for number, _ in lines_outside_code("\n".join(before))}
        assert len(before) == len(after)
        assert all(one == other for n, (one, other) in enumerate(zip(before, after, strict=True)) if n not in outside)


def test_sections() -> None:
    page = "# Title\n\nFirst.\n\n## One\n\na\n\n## Two\n\nb\n"
    assert [section(page, name) for name in ("Introduction", "One", "Two")] == ["First.", "a", "b"]
    with pytest.raises(ValueError, match="Three"):
        section(page, "Three")


def test_every_public_name_has_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(python_pages().values())
    for name in repvgg.__all__:
        assert f"repvgg.{name}\n" in text, name
    monkeypatch.setattr(repvgg, "__all__", [*repvgg.__all__, "novelty"])
    with pytest.raises(RuntimeError, match="novelty"):
        website.reference.python_pages()


def test_every_option_of_every_command_is_on_its_page() -> None:
    pages = command_pages()
    for name, command in typer.main.get_command(app).commands.items():
        page = pages[f"reference/commands/{name}.md"]
        for parameter in command.params:
            if parameter.name != "help" and not parameter.hidden:
                shown = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.name.upper()
                assert f"`{shown}`" in page, f"{name}: {shown}"
    assert "| `--tensorboard`, `--no-tensorboard` |  | `--tensorboard` |" in pages["reference/commands/train.md"]
    assert "| `--crop-scale` | number, number |" in pages["reference/commands/train.md"]


def test_broken_links_end_the_build(tmp_path: Path) -> None:
    """What the generator finds; pictures, of which it knows nothing, are looked for afterwards."""
    pytest.importorskip("zensical", reason="the site's generator is not installed: make docs")
    (tmp_path / "docs").mkdir()
    links = " ".join(f"[this]({link})" for link in ("two.md", "index.md#nowhere", "#nowhere"))
    (tmp_path / "docs" / "index.md").write_text(f"# One\n\n{links}\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\n", encoding="utf-8")
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "-f", "mkdocs.yml"]
    built = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, timeout=120, text=True)
    assert built.returncode != 0
    assert "3 issues found" in built.stdout + built.stderr


def test_links_of_the_built_site(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "index.html").write_text(
        """<h1 id="top">One</h1><img src="lost.png"><script src="https://cdn.example/x.js"></script>
        <a href="one/">fine</a> <a href="one/#there">fine</a> <a href="/one/#gone">gone</a> <a href="#nowhere">gone</a>
        <a href="https://example.org/">fine</a> <a href="#top">fine</a> <a href="two/">gone</a>""",
        encoding="utf-8",
    )
    (tmp_path / "one" / "index.html").write_text('<p id="there"><a href="..">back</a>', encoding="utf-8")
    assert check_links(tmp_path) == [
        "index.html has #nowhere, and there is no such anchor.",
        "index.html has /one/#gone, and there is no such anchor.",
        "index.html fetches https://cdn.example/x.js: a reader without a network does not see it.",
        "index.html has lost.png, and there is no such file.",
        "index.html has two/, and there is no such file.",
    ]
