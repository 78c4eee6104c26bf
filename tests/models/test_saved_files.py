"""Files that earlier versions wrote still load and give the answers of then. `golden/make_saved.py` made them."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import repvgg
from helpers import Array, relative_error

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("saved-*/*.keras"))


def answers_of(path: Path) -> tuple[Array, dict[str, Array]]:
    with np.load(path.parent / "answers.npz") as arrays:
        named = {name.split("/")[1]: arrays[name] for name in arrays if name.startswith(f"{path.stem}/")}
        return arrays["images"], named


@pytest.mark.backends
@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_it_loads_and_answers_as_when_it_was_saved(path: Path) -> None:
    images, expected = answers_of(path)
    model = repvgg.load_model(path)
    outputs: Any = model(images, training=False)
    outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
    assert outputs.keys() == expected.keys()
    for name, value in outputs.items():
        # The same numbers in the same operations; another processor or backend adds them up in another order.
        assert relative_error(expected[name], value) < 1e-5
    assert repvgg.get_metadata(model).class_names == tuple(f"class {i}" for i in range(5))


@pytest.mark.parametrize("path", [path for path in FILES if path.stem in ("training", "qarepvgg", "grouped", "plus")])
def test_its_training_form_still_converts(path: Path) -> None:
    images, expected = answers_of(path)
    deployed = repvgg.reparameterize(repvgg.load_model(path))
    reference = expected.get("main", expected.get("output"))
    assert relative_error(reference, deployed(keras.ops.convert_to_tensor(images), training=False)) < 1e-4


def test_no_version_is_without_files() -> None:
    assert {path.parent.name for path in FILES} >= {"saved-0.1.0"}
    assert len(FILES) >= 10
