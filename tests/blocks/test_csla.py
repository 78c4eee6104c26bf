"""What gradients are multiplied with, against the paper's formula and the authors' code (`golden/make_repopt.py`)."""

from pathlib import Path

import numpy as np
import pytest

from repvgg.blocks import KINDS
from repvgg.blocks.csla import UPDATE_RULES, UpdateRule, fresh_kernel, gradient_multiplier, scale_parameters
from repvgg.core.architecture import BlockShape

GOLDEN = Path(__file__).parents[1] / "golden" / "repopt.npz"
KIND = KINDS["LinearAdditionBlock"]

SHAPES = {
    "identity": BlockShape(4, 4),
    "wider": BlockShape(4, 6),
    "strided": BlockShape(4, 4, strides=2),
    "groups": BlockShape(6, 6, groups=3),
    "unequal sides": BlockShape(4, 4, (3, 5)),
    "input left out": BlockShape(4, 4, takes_input=False),
}


def factors_of(shape: BlockShape, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {one.path: rng.normal(0, 1, one.shape) for one in scale_parameters(KIND, shape)}


@pytest.mark.parametrize("rule", UPDATE_RULES)
@pytest.mark.parametrize("name", SHAPES)
def test_the_papers_formula(name: str, rule: UpdateRule, rng: np.random.Generator) -> None:
    shape = SHAPES[name]
    factors = factors_of(shape, rng)
    found = gradient_multiplier(KIND, shape, factors, rule)
    counts = np.square if rule == "sgd" else np.abs
    (height, width), per_group = shape.kernel_size, shape.in_channels // shape.groups
    wanted = np.broadcast_to(counts(factors["conv3x3.scale1.scale"]), (height, width, per_group, shape.filters)).copy()
    wanted[height // 2, width // 2] += counts(factors["conv1x1.scale1.scale"])
    assert ("identity.scale" in factors) == (name not in ("wider", "strided", "input left out"))
    if "identity.scale" in factors:
        for channel in range(shape.filters):
            wanted[height // 2, width // 2, channel % per_group, channel] += 1
    np.testing.assert_allclose(found, wanted, rtol=1e-15)


@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_the_authors_multipliers(rule: UpdateRule) -> None:
    with np.load(GOLDEN) as arrays:
        theirs = {key: arrays[key] for key in arrays if key.startswith(f"multipliers/{rule}/")}
        assert len(theirs) == 6
        for key, wanted in theirs.items():
            block = key.removeprefix(f"multipliers/{rule}/").removesuffix("conv.weight")
            inputs, filters = wanted.shape[1], wanted.shape[0]
            shape = BlockShape(inputs, filters, takes_input=f"search/{block}scale_identity.weight" in arrays)
            factors = {one.path: arrays[f"search/{block}{one.tensor}"] for one in scale_parameters(KIND, shape)}
            found = gradient_multiplier(KIND, shape, factors, rule)
            np.testing.assert_allclose(found.transpose(3, 2, 0, 1), wanted, rtol=1e-14)


def test_a_fresh_kernel_is_the_sum_of_fresh_branches(rng: np.random.Generator) -> None:
    shape = BlockShape(4, 4)
    factors = factors_of(shape, rng)
    main = rng.normal(0, 1, (3, 3, 4, 4))
    found = fresh_kernel(KIND, shape, main, factors, np.random.default_rng(3))
    rest = found - main * factors["conv3x3.scale1.scale"]
    point = rest[1, 1] - np.diag(factors["identity.scale"])
    rest[1, 1] = 0
    np.testing.assert_allclose(rest, 0, atol=1e-15)
    drawn = point / factors["conv1x1.scale1.scale"]
    # PyTorch's: uniform in +-1/sqrt(fan_in).
    assert 0.25 < np.abs(drawn).max() <= 0.5
    assert len(np.unique(drawn.round(9))) == 16
