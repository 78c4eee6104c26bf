"""How texts are made of facts: templates beside this file, and how they write numbers."""

import json
import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


@cache
def environment() -> Environment:
    """Everything that is put into a page is escaped; what is missing is an error, never a gap."""
    made = Environment(
        loader=PackageLoader("repvgg.reporting", "templates"),
        autoescape=lambda name: name is None or not name.endswith(".md.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters.update(
        percent=percent, size=human_size, count=short_count, error=error, ms=milliseconds, markdown=markdown, yaml=yaml
    )
    return made


def percent(share: float | None, digits: int = 2) -> str:
    """A share, 0 to 1."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def human_size(size: int | None) -> str:
    """Bytes for people: 33.4 MB."""
    if size is None:
        return "-"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"


def short_count(number: float) -> str:
    """8.31 M, 12.3 k."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:g}"


def error(value: float | None) -> str:
    """A relative error."""
    return "-" if value is None else f"{value:.1e}"


def milliseconds(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def markdown(value: object) -> str:
    """Text that means itself in Markdown, also in a table."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(value).split()))


def yaml(value: Any) -> str:
    """A value in a YAML header; JSON is YAML."""
    return json.dumps(value, ensure_ascii=False)
