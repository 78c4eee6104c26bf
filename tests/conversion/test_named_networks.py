"""Every named network from training to deploy form."""

from typing import Any

import keras
import numpy as np
import pytest
from converting import assert_stock

from helpers import (
    BACKEND,
    infer,
    random_images,
    relative_error,
    trained_like,
)
from repvgg.blocks import KINDS
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterization as conversion
from repvgg.conversion import reparameterize
from repvgg.core.architecture import BlockShape
from repvgg.models.cost import count_cost
from repvgg.models.model import RepVGG
from repvgg.models.recover import recover
from repvgg.models.variants import VARIANTS
from sampling import first_of_each, kind_of_variant, sampled

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
"""Relative errors of the logits: some hundred roundings of each dtype, in networks of up to 49 blocks."""


AMPLIFYING = ("ACB-A0", "MobileOne-S4")
"""With random statistics and full width these amplify rounding, or leave two images hardly apart: MobileOne-S4 is off
by 1.6e-4 in float32 and 1.4e-12 in float64. They are compared in float64, to ten times the tolerance of the others."""

DEEP = ("RepVGG-B1g2", "RepVGG-D2se", "RepVGGplus-L2pse", "QARepVGG-B1g4")
"""Some thirty blocks of kinds that other tests have in shallower networks as well take ten seconds each."""

SAMPLE = {
    "tensorflow": [name for name in first_of_each(VARIANTS, kind_of_variant) if name not in DEEP],
    "jax": ["RepVGG-A0"],
    "torch": ["RepVGG-A0"],
}


def gain_of(name: str) -> float:
    """Of gammas, so that images still differ after the last of many blocks without an identity."""
    kind = KINDS[VARIANTS[name].architecture.block]
    return 2.5 if len(list(kind.branches(BlockShape(8, 8)))) == 1 else 1.0


def check_converted(monkeypatch: pytest.MonkeyPatch, model: Any, dtype: str, *, amplifies: bool = False) -> None:
    """An even and an odd size at every stride, relative to the largest logit.

    What `reparameterize` checks itself is left out: this is the same, with more images and lower tolerances.
    """
    tolerance = TOLERANCES[dtype] * (10 if amplifies else 1)
    monkeypatch.setattr(conversion, "check_conversion", lambda *arguments: None)
    deployed = reparameterize(model)
    assert_stock(deployed)
    for size in (64, 75):
        images = random_images((2, size, size, 3), dtype=dtype)
        expected, found = infer(model, images), infer(deployed, images)
        expected = expected["main"] if isinstance(expected, dict) else expected
        assert expected.dtype == found.dtype == dtype
        # Two images still differ at the end; where they do not, the comparison says nothing about the first blocks.
        assert expected.std(axis=0).max() > 100 * tolerance * np.abs(expected).max()
        assert relative_error(expected, found) <= tolerance
    recovered = recover(deployed)
    cost = count_cost(recovered.architecture, recovered.num_classes, (224, 224))
    assert deployed.count_params() == cost.deploy_parameters


@pytest.mark.parametrize("name", sampled(VARIANTS, ["RepVGG-A0"]))
def test_every_variant(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Full width and depth, random statistics."""
    amplifies = name in AMPLIFYING
    dtype = "float64" if amplifies else "float32"
    model = trained_like(create_model(name, dtype=dtype), gain=gain_of(name))
    assert model.count_params() > VARIANTS[name].cost().train_parameters
    check_converted(monkeypatch, model, dtype, amplifies=amplifies)
    keras.backend.clear_session()


@pytest.mark.backends
@pytest.mark.parametrize("name", sampled(VARIANTS, SAMPLE[BACKEND]))
def test_variants_at_an_eighth_of_their_width(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Of every depth and every choice of groups; on TensorFlow in float64, where nothing hides in the rounding."""
    architecture = VARIANTS[name].architecture
    widths = [factor / 8 for factor in architecture.width_multiplier]
    blocks = architecture.num_blocks, widths, architecture.groups
    settings = {"block": architecture.block, "squeeze_excite": architecture.squeeze_excite}
    dtype = "float64" if BACKEND == "tensorflow" else "float32"
    model = RepVGG(*blocks, dtype=dtype, auxiliary_heads=architecture.auxiliary_heads, **settings)
    check_converted(monkeypatch, trained_like(model, gain=gain_of(name)), dtype)
