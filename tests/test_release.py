"""What a release says about itself in several places is the same, and its types hold for a user."""

import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import repvgg

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

DEVELOPERS = {"test", "check", "docs", "package"}
OTHER_BACKENDS = {"jax", "torch"}

USER = """
import numpy as np

import repvgg


def train_and_ship(folder: str) -> float:
    result = repvgg.train(folder, "RepVGG-A0", epochs=1)
    deployed = repvgg.reparameterize(result.model)
    report: repvgg.VerificationReport = repvgg.verify(result.model, deployed)
    if not report.passed:
        raise SystemExit(str(report))
    repvgg.set_metadata(deployed, class_names=("a", "b"), preprocessing=repvgg.Preprocessing(crop=96, resize=110))
    repvgg.export(deployed, "model.onnx")
    runner: repvgg.Runner = repvgg.load_runner("model.onnx", threads=1)
    logits: np.ndarray = runner(np.zeros((1, 96, 96, 3), np.float32))
    return float(logits.max()) + repvgg.evaluate(deployed, folder).top1


def facts() -> list[str]:
    return [name for name in repvgg.list_variants() if repvgg.get_variant(name).cost().deploy_macs < 1e9]
"""


def test_the_version_is_everywhere_the_same() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == repvgg.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    latest = re.findall(r"^## \[(\d[^]]*)\] - (\S+)$", changelog, re.MULTILINE)[0]
    assert latest == (repvgg.__version__, str(citation["date-released"]))


def test_notes_of_a_release() -> None:
    script = ROOT / "scripts" / "release-notes"
    notes = subprocess.run([script, repvgg.__version__], capture_output=True, text=True, check=True).stdout
    assert notes.strip().startswith("### Added")
    assert "\n## " not in notes
    missing = subprocess.run([script, "9.9.9"], capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "no section '## [9.9.9]'" in missing.stderr


def test_all_is_everything_for_users() -> None:
    extras = PROJECT["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(re.fullmatch(r"repvgg\[(.+)\]", everything)[1].split(","))  # type: ignore[index]
    assert named == set(extras) - DEVELOPERS - OTHER_BACKENDS - {"all"}


def test_every_extra_that_an_error_names_exists() -> None:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    named = {extra for text in sources for extra in re.findall(r'extra="(\w+)"', text)}
    assert {"onnx", "serve"} <= named <= set(PROJECT["optional-dependencies"])


@pytest.mark.full  # mypy reads Keras once, for a quarter of a minute
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed: pip install 'repvgg[check]'")
def test_types_hold_for_a_user(tmp_path: Path) -> None:
    """`mypy --strict` with a user's settings, which are none; a wrong use is found."""
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    (tmp_path / "right.py").write_text(USER)
    (tmp_path / "wrong.py").write_text("import repvgg\n\nrepvgg.load_runner(3)\nrepvgg.Preprocessing(crop='96')\n")
    finished = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "right.py", "wrong.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(ROOT / "src"), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    errors = [line for line in finished.stdout.splitlines() if "error:" in line]
    assert len(errors) == 2, finished.stdout + finished.stderr
    assert 'wrong.py:3: error: Argument 1 to "load_runner" has incompatible type "int"' in errors[0]
    assert 'wrong.py:4: error: Argument "crop" to "Preprocessing" has incompatible type "str"' in errors[1]
