"""`python -m website`: stages the pages in build/docs and has Zensical make build/site of them; warnings are errors."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from website.commands import command_pages
from website.links import check_links
from website.navigation import check_navigation, navigation, with_generated
from website.pages import ROOT, stage
from website.reference import python_pages

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CONFIG = Path(__file__).parent / "mkdocs.yml"


def main() -> None:
    """Builds the site, or ends with what is wrong with the pages."""
    pages = ROOT / "build" / "docs"
    site = ROOT / "build" / "site"
    for folder in (pages, site):
        shutil.rmtree(folder, ignore_errors=True)
    generated = {**python_pages(), **command_pages()}
    stage(pages, generated)
    # Zensical wants the configuration beside what it names.
    config = with_generated(CONFIG.read_text(encoding="utf-8"), generated)
    (ROOT / "build" / "mkdocs.yml").write_text(config, encoding="utf-8")
    wrong = check_navigation(navigation(config), pages)
    if wrong:
        sys.exit("\n".join(wrong))
    command = [Path(sys.executable).parent / "zensical", "build", "--strict", "--clean", "-f", "mkdocs.yml"]
    environment = {**os.environ, "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    built = subprocess.run(
        command,
        cwd=ROOT / "build",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
    )
    # What reads the docstrings only prints what is wrong with them.
    if built.returncode or "griffe: " in built.stdout:
        sys.exit(f"{COLOURS.sub('', built.stdout)}\nThe site was not built (exit status {built.returncode}).")
    wrong = check_links(site)
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"Written: {site.relative_to(ROOT)}/index.html")  # noqa: T201 - what a person waits for


if __name__ == "__main__":
    main()
