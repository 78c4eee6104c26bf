"""The page in a real browser: whole and legible at every width, by day and by night."""

from collections.abc import Iterator

import pytest
from browser import CHROMIUM, Browser
from made_facts import made_facts

from repvgg.reporting.page import page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: scripts/install-browser")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("browser")
    (folder / "page.html").write_text(page(made_facts()), encoding="utf-8")
    with Browser(folder / "profile") as browser:
        browser.open((folder / "page.html").as_uri())
        yield browser


@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_sticks_out(width: int, browser: Browser) -> None:
    """Wide tables scroll inside their section; the page itself never does sideways."""
    browser.set_size(width, 900)
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    outside = browser.evaluate(
        """[...document.querySelectorAll("body *")].filter((one) => !one.closest(".scroll, pre, svg")
            && one.getBoundingClientRect().right > window.innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert outside == []


def test_every_picture_is_there(browser: Browser) -> None:
    assert browser.evaluate("[...document.images].length") == 12
    assert browser.evaluate("[...document.images].every((one) => one.complete && one.naturalWidth === 64)")
    assert browser.evaluate("performance.getEntriesByType('resource').every((one) => one.name.startsWith('data:'))")
    assert browser.evaluate("[...document.querySelectorAll('nav a')].every((one) => document.querySelector(one.hash))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_by_day_and_by_night(scheme: str, browser: Browser) -> None:
    browser.set_scheme(scheme)
    shades = browser.evaluate(
        """[document.body, document.querySelector("section")].map((one) => {
            const style = getComputedStyle(one);
            return [style.backgroundColor, style.color].map((color) => Math.max(...color.match(/\\d+/g).map(Number)));
        })"""
    )
    for ground, ink in shades:
        assert (ground > 200 > 100 > ink) if scheme == "light" else (ground < 60 < 200 < ink)
