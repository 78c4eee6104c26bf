"""The built site as a browser reads it: every link leads somewhere in it, and nothing is fetched from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
"""What a browser loads by itself, and the attribute that says from where."""


class _Page(HTMLParser):
    """The anchors and links of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.fetched: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.anchors |= {name for key in ("id", "name") if (name := values.get(key))}
        if tag == "a" and (target := values.get("href")):
            self.links.add(target)
        if tag in FETCHED and (target := values.get(FETCHED[tag])):
            self.fetched.add(target)


def check_links(site: Path) -> list[str]:
    """A sentence for each link, picture, script or style that leads nowhere, or to another server."""
    pages = {file: _Page(file.read_text(encoding="utf-8")) for file in sorted(site.rglob("*.html"))}
    wrong = []
    for file, page in pages.items():
        name = file.relative_to(site)
        for target in sorted(page.links | page.fetched):
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.fetched and parts.scheme != "data":
                    wrong.append(f"{name} fetches {target}: a reader without a network does not see it.")
                continue
            place = _file(site, file, unquote(parts.path))
            if not place.is_file():
                wrong.append(f"{name} has {target}, and there is no such file.")
            elif parts.fragment and place in pages and unquote(parts.fragment) not in pages[place].anchors:
                wrong.append(f"{name} has {target}, and there is no such anchor.")
    return wrong


def _file(site: Path, page: Path, path: str) -> Path:
    """The file that a server sends for a path."""
    if not path:
        return page
    place = site / path.lstrip("/") if path.startswith("/") else (page.parent / path)
    return (place / "index.html" if place.is_dir() else place).resolve()
