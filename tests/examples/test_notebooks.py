"""The notebooks run from the first cell to the last, on fewer images; nothing of a run is kept in them."""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import repvgg
from fitted import CLASS_NAMES, PREPROCESSING, digits, fitted
from narrow import narrow_variants

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PARAMETERS = "parameters"
"""The tag of the cell whose names a test sets anew, as papermill has it."""


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return cells


def run(path: Path, **parameters: Any) -> tuple[dict[str, Any], str]:
    """The names that a notebook leaves and what it prints."""
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    for number, cell in enumerate(cells_of(path)):
        if cell["cell_type"] != "code":
            continue
        with contextlib.redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{path.name}[{number}]", "exec"), names)
        if PARAMETERS in cell["metadata"].get("tags", ()):
            unknown = set(parameters) - set(names)
            assert not unknown, f"The notebook has no parameters {unknown}."
            names.update(parameters)
    return names, printed.getvalue()


@pytest.fixture(autouse=True)
def without_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    mpl.use("agg")
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def test_both_are_there() -> None:
    assert [path.name for path in NOTEBOOKS] == ["checkpoint_to_phone.ipynb", "digits.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_outputs_are_stripped(path: Path) -> None:
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert sum(PARAMETERS in cell["metadata"].get("tags", ()) for cell in code) == 1


def test_digits() -> None:
    pytest.importorskip("onnxruntime")
    with narrow_variants():
        names, printed = run(FOLDER / "digits.ipynb", epochs=1, images_to_train_on=256)
    assert names["report"].passed
    assert names["report"].max_relative_error > 0
    assert Path("digits.onnx").exists()
    assert f"digits.onnx: {names['accuracy']:.2%} of 450 test digits are right" in printed


@pytest.mark.full
def test_checkpoint_to_phone(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    save_as_folders(tmp_path / "digits")
    repvgg.save_checkpoint(fitted(num_blocks=[1, 1, 1, 1]), "digits.pth")
    settings = {"size": 32, "resize": 32, "mean": PREPROCESSING.mean, "std": PREPROCESSING.std}
    names, printed = run(FOLDER / "checkpoint_to_phone.ipynb", checkpoint="digits.pth", images="digits", **settings)
    assert names["in_float"].top1 > 0.8
    assert names["agreement"] > 0.95
    assert names["rounded"].size < 0.5 * names["plain"].size
    assert f"the same class for {names['agreement']:.2%} of 100 images" in printed


def save_as_folders(folder: Path) -> None:
    """Digits as files: 100 to train on, and 100 others to look at."""
    data = digits()
    for part, images, labels in (
        ("train", data.train_images, data.train_labels),
        ("val", data.test_images, data.test_labels),
    ):
        for index in range(100):
            place = folder / part / CLASS_NAMES[labels[index]]
            place.mkdir(parents=True, exist_ok=True)
            pixels = np.round((images[index] * PREPROCESSING.std[0] + PREPROCESSING.mean[0]) * 255).astype(np.uint8)
            Image.fromarray(pixels).save(place / f"{index}.png")
