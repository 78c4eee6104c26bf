"""Networks that the official implementation saved, with random weights and statistics, and the logits it gave.

`golden/make_weights.py` made the files. The names are mapped here and not by the package, so that a mistake in its own
reading of checkpoints cannot cancel out.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Array, infer, relative_error
from repvgg.conversion import reparameterize
from repvgg.core.architecture import SqueezeExcite, alternate_groups
from repvgg.models.model import RepVGG
from sampling import FULL

GOLDEN = Path(__file__).parents[1] / "golden"
DEPTHS = (2, 2, 3, 1)
CASES: dict[str, dict[str, Any]] = {
    "official_train": {},
    "official_train_odd": {},
    "official_train_ddp": {},
    "official_train_g2": {"override_groups_map": alternate_groups(2, DEPTHS)},
    "official_train_g4": {"override_groups_map": alternate_groups(4, DEPTHS)},
    "official_train_se": {"squeeze_excite": SqueezeExcite("before_activation", 16)},
}
"""Width 16 in the stem, then 16, 32, 64, 128 channels, and 10 classes."""

ON_ALL_BACKENDS = ("official_train_odd", "official_train_g4", "official_train_se")

NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def find_variable(model: Any, name: str) -> Any:
    """Our weight for an official name such as 'stage2.1.rbr_dense.bn.running_var'."""
    parts = name.split(".")
    if parts[0] == "linear":
        return getattr(model.get_layer("classifier"), {"weight": "kernel", "bias": "bias"}[parts[1]])
    if parts[0] == "stage0":
        block, (branch, *rest) = model.get_layer("stage0"), parts[1:]
    else:
        block, (branch, *rest) = model.get_layer(f"{parts[0]}_block{parts[1]}"), parts[2:]
    if branch == "rbr_identity":
        return getattr(block.identity, NORM[rest[0]])
    if branch == "se":
        return getattr(getattr(block.attention, rest[0]), {"weight": "kernel", "bias": "bias"}[rest[1]])
    layer = {"rbr_dense": block.conv3x3, "rbr_1x1": block.conv1x1}[branch]
    return layer.kernel if rest == ["conv", "weight"] else getattr(layer.norm, NORM[rest[1]])


def as_ours(array: Array) -> Array:
    """torch keeps (out, in, height, width) and (out, in); Keras (height, width, in, out) and (in, out)."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def load(case: str) -> tuple[Any, Array, Array]:
    model = RepVGG(DEPTHS, [0.25] * 4, num_classes=10, **CASES[case])
    with np.load(GOLDEN / f"{case}.npz") as arrays:
        images, logits, source = arrays["images"], arrays["logits"], str(arrays["weights"])
    filled = set()
    with np.load(GOLDEN / f"{source}.weights.npz") as weights:
        for name in weights.files:
            variable = find_variable(model, name)
            assert tuple(variable.shape) == as_ours(weights[name]).shape, name
            variable.assign(as_ours(weights[name]))
            filled.add(variable.path)
    assert filled == {variable.path for variable in model.weights}
    return model, images, logits


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=pytest.mark.backends if case in ON_ALL_BACKENDS else FULL) for case in CASES]
)
def test_the_official_logits_in_both_forms(case: str) -> None:
    """1e-5 relative: both sides are float32 and add up in different orders, in 9 blocks."""
    model, images, logits = load(case)
    assert images.shape[1] == (75 if case.endswith("odd") else 64)
    assert relative_error(logits, infer(model, images)) < 1e-5
    assert relative_error(logits, infer(reparameterize(model), images)) < 1e-5
