"""Puts the pages where the site's generator finds them, with links that hold there.

Pages are written for GitHub: they link to files of the repository. On the site a page of docs/ stays a page; any other
file that is linked to becomes a page with that file's text, so nothing leads out of the site.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from website.notebooks import as_page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

PROJECT = {
    ROOT / "ARCHITECTURE.md": "project/architecture.md",
    ROOT / "CONTRIBUTING.md": "project/contributing.md",
    ROOT / "CHANGELOG.md": "project/changelog.md",
    ROOT / "README.md": "project/readme.md",
}
"""Pages that are not in docs/, and where the site has them."""

NOTEBOOKS = {
    notebook: f"tutorials/{notebook.stem.replace('_', '-')}.md"
    for notebook in sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
}
"""Notebooks, which become pages."""

LANGUAGES = {".py": "python", ".c": "c", ".js": "javascript", ".html": "html", ".css": "css", ".json": "json"}
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
LINK = re.compile(r"(?<!\\)(\]\()([^()\s]+)(\))")
INCLUDE = re.compile(r"<!-- README: (.+?) -->")


def stage(folder: Path, generated: Mapping[str, str]) -> None:
    """Writes all pages into `folder`: those of docs/, notebooks, the project's, `generated` ones, and linked files."""
    sources = {page: page.relative_to(DOCS).as_posix() for page in sorted(DOCS.rglob("*.md"))}
    sources |= PROJECT | NOTEBOOKS
    linked: set[Path] = set()
    for source, place in sources.items():
        text = source.read_text(encoding="utf-8")
        text = as_page(text) if source in NOTEBOOKS else _with_readme(text, source)
        _write(folder / place, _relink(text, source, place, sources, linked))
    for file in DOCS.rglob("*"):
        if file.is_file() and file.suffix != ".md":
            _copy(file, folder / file.relative_to(DOCS))
    shutil.copytree(Path(__file__).parent / "assets", folder / "assets", dirs_exist_ok=True)
    for place, text in generated.items():
        _write(folder / place, text)
    for file in sorted(_with_content(linked)):
        _write_source(file, folder)
    _write(folder / "source" / "index.md", _index_of(file for file in linked))


def section(text: str, heading: str) -> str:
    """The part of a page below a heading of the second level, to the next; or above the first, for "Introduction"."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    titles = ["Introduction", *parts[1::2]]
    return re.sub(r"^# .+\n", "", parts[0::2][titles.index(heading)].strip()).strip()


def lines_outside_code(text: str) -> Iterator[tuple[int, str]]:
    """Lines that are not in a fenced block, and their numbers from 0."""
    fence = ""
    for number, line in enumerate(text.split("\n")):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
        elif not fence:
            yield number, line


def _with_readme(text: str, source: Path) -> str:
    """With the sections of README.md that the page asks for, their links as if written there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    base = os.path.relpath(ROOT, source.parent)

    def included(match: re.Match[str]) -> str:
        part = section(readme, match[1])
        return LINK.sub(lambda link: "](" + _moved(link[2], base) + ")", part)

    return INCLUDE.sub(included, text)


def _moved(target: str, base: str) -> str:
    return target if _leads_out(target) else f"{base}/{target}"


def _leads_out(target: str) -> bool:
    return target.startswith("#") or re.match(r"[a-z]+:", target) is not None


def _relink(text: str, source: Path, place: str, sources: Mapping[Path, str], linked: set[Path]) -> str:
    """The page with links to where the site has what they lead to; files that are not pages are added to `linked`."""

    def moved(match: re.Match[str]) -> str:
        target = match[2]
        if _leads_out(target):
            return match[0]
        path, mark, anchor = target.partition("#")
        file = (source.parent / path).resolve()
        if file in sources:
            new = sources[file]
        elif file.is_relative_to(DOCS):
            new = file.relative_to(DOCS).as_posix()
        elif file.exists() and file.is_relative_to(ROOT):
            linked.add(file)
            new = _source_place(file)
        else:
            return match[0]  # The generator tells of it, with its line.
        return f"{match[1]}{os.path.relpath(new, Path(place).parent)}{mark}{anchor}{match[3]}"

    lines = text.split("\n")
    for number, line in lines_outside_code(text):
        lines[number] = LINK.sub(moved, line)
    return "\n".join(lines)


def _source_place(file: Path) -> str:
    name = file.relative_to(ROOT).as_posix()
    # A page `index.html.md` would become a folder that servers take for the folder's own page.
    return f"source/{name}/index.md" if file.is_dir() else f"source/{name.replace('.', '-')}.md"


def _with_content(linked: set[Path]) -> set[Path]:
    """With the files of the folders among them."""
    return linked | {file for folder in linked if folder.is_dir() for file in _files(folder)}


def _files(folder: Path) -> list[Path]:
    """The folder's own files of text."""
    return sorted(file for file in folder.iterdir() if file.suffix in LANGUAGES and "lock" not in file.name)


def _write_source(file: Path, folder: Path) -> None:
    name = file.relative_to(ROOT).as_posix()
    if file.is_dir():
        _write(folder / _source_place(file), f"# {name}\n\n" + _list(_files(file), Path(_source_place(file)).parent))
        return
    text = file.read_text(encoding="utf-8").rstrip("\n")
    _write(folder / _source_place(file), f"# {file.name}\n\n`{name}`\n\n````{LANGUAGES[file.suffix]}\n{text}\n````\n")


def _index_of(linked: Iterator[Path]) -> str:
    return (
        "# Files\n\nFiles of the repository that these pages name, as they were when the site was built.\n\n"
        + _list(sorted(linked), Path("source"))
    )


def _list(files: list[Path], base: Path) -> str:
    return "".join(
        f"- [{file.relative_to(ROOT).as_posix()}]({os.path.relpath(_source_place(file), base)})\n" for file in files
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _copy(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, path)
