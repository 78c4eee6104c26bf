"""Blocks of the authors' own code, with random weights and statistics. `golden/make_blocks.py` made the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Array, infer, relative_error
from repvgg.blocks import BLOCKS, KINDS

FILES = sorted((Path(__file__).parents[1] / "golden" / "blocks").glob("*.npz"))


def load(path: Path) -> tuple[Any, dict[str, Array]]:
    """Our block with their weights, each parameter under the name that the kind gives it."""
    with np.load(path) as arrays:
        settings, found = json.loads(str(arrays["settings"])), dict(arrays)
    state = {name.removeprefix("state/"): array for name, array in found.items() if name.startswith("state/")}
    block = BLOCKS[settings.pop("kind")](**settings)
    block.build(found["images"].shape)
    for parameter in block.kind.parameters(block.shape):
        tensor = state.pop(parameter.tensor)
        assert tensor.shape == parameter.torch_shape
        block.variable(parameter.path).assign(tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor)
    assert not state
    return block, found


@pytest.mark.backends
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_both_forms_answer_as_the_authors_do(path: Path) -> None:
    block, found = load(path)
    # Sums of at most 25 * 8 products in another order.
    assert relative_error(found["training"], infer(block, found["images"])) < 1e-5
    block.switch_to_deploy()
    assert relative_error(found["deploy"], infer(block, found["images"])) < 1e-5


def test_every_kind_that_its_authors_published_alone_is_there() -> None:
    kinds = {str(json.loads(str(np.load(path)["settings"]))["kind"]) for path in FILES}
    # The others are held by whole networks: the official repository's, RepOptimizers' in test_repopt, and PyTorch's
    # modules in test_qarepvgg.
    assert kinds == set(KINDS) - {"RepVGGBlock", "QARepVGGBlock", "RepOptVGGBlock", "LinearAdditionBlock"}
