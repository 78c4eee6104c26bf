"""What the generator does not check: that each page is in the navigation, and each entry there is a page."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

HIDDEN = "source"
"""The folder of pages that others link to, and that no menu lists one by one."""


class _Settings(yaml.SafeLoader):
    """YAML in which Python's objects, of which the generator's settings name some, are nothing."""


_Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def with_generated(config: str, generated: Iterable[str]) -> str:
    """The generator's settings, in which an entry `folder/*` is a menu of the generated pages there, in their order."""
    places = list(generated)

    def entries(match: re.Match[str]) -> str:
        return "\n".join(match[1] + place for place in places if Path(place).parent.as_posix() == match[2])

    return re.sub(r"^( *- )(\S+)/\*$", entries, config, flags=re.MULTILINE)


def navigation(config: str) -> Any:
    """The menus of the generator's settings."""
    return yaml.load(config, _Settings)["nav"]


def check_navigation(navigation: Any, pages: Path) -> list[str]:
    """A sentence for each page that is missing in the navigation or named there and missing."""
    named = list(_places(navigation))
    there = {page.relative_to(pages).as_posix() for page in pages.rglob("*.md")}
    wrong = [f"website/mkdocs.yml names {place} twice." for place in sorted(set(named)) if named.count(place) > 1]
    wrong += [f"website/mkdocs.yml names {place}, which is not a page." for place in sorted(set(named) - there)]
    return wrong + [
        f"{place} is in no menu. Add it to `nav` in website/mkdocs.yml."
        for place in sorted(there - set(named))
        if not place.startswith(f"{HIDDEN}/")
    ]


def _places(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from _places(part)
