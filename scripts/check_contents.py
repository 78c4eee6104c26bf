"""Whether a wheel and an sdist hold exactly what they should: the package as it is in git, and nothing else.

python scripts/check_contents.py dist/repvgg-0.2.0-py3-none-any.whl dist/repvgg-0.2.0.tar.gz
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ABOUT = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
SDIST = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "pyproject.toml"}


def tracked(*folders: str) -> set[str]:
    """Files that git has."""
    listed = subprocess.run(["git", "ls-files", "-z", *folders], check=True, capture_output=True, text=True)
    return {name for name in listed.stdout.split("\0") if name and Path(name).exists()}


def compare(archive: str, found: set[str], expected: set[str]) -> list[str]:
    """A line for each file too many or too few."""
    lines = [f"{archive}: {name} is missing" for name in sorted(expected - found)]
    return lines + [f"{archive}: {name} does not belong there" for name in sorted(found - expected)]


def main() -> None:
    """Compares, and exits with 1 if something differs."""
    wheel, sdist = map(Path, sys.argv[1:])
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    about = f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"
    expected = {name.removeprefix("src/") for name in tracked("src/repvgg")} | {f"{about}/{name}" for name in ABOUT}
    wrong = compare(wheel.name, names, expected)
    with tarfile.open(sdist) as archive:
        members = {"/".join(PurePosixPath(member.name).parts[1:]) for member in archive.getmembers()}
    # What the build tool always adds.
    members -= {"PKG-INFO", ".gitignore"}
    wrong += compare(sdist.name, members, tracked("src", "tests") | SDIST)
    print("\n".join(wrong) or f"{wheel.name} and {sdist.name}: {len(expected)} and {len(members)} files, as in git")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
