"""What is not converted, and what the check before the hand-over catches."""

from typing import Any

import keras
import numpy as np
import pytest

from helpers import (
    small_network,
    trained_like,
)
from repvgg.base.errors import ConversionError, VerificationError
from repvgg.blocks import RepVGGBlock
from repvgg.conversion import reparameterize
from repvgg.core import fold
from repvgg.core.architecture import SqueezeExcite
from repvgg.models.metadata import get_metadata, set_metadata

# What cannot be converted


def test_models_without_blocks_and_converted_ones() -> None:
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ConversionError, match=r"'plain' contains no re-parameterizable block.*built of other layers"):
        reparameterize(plain)
    deployed = reparameterize(small_network(name="mine"))
    assert get_metadata(deployed).form == "deploy"
    with pytest.raises(
        ConversionError, match=r"'mine' contains no .* nothing to convert. It says .* deploy form already"
    ):
        reparameterize(deployed)
    set_metadata(deployed, form="training")
    with pytest.raises(ConversionError, match=r"'mine' contains no .*converted before, or .* built of other layers"):
        reparameterize(deployed)
    for other in (None, "model.keras", [small_network()]):
        with pytest.raises(ConversionError, match=f"A Keras model was expected, and a {type(other).__name__} came"):
            reparameterize(other)


def test_a_subclassed_model_is_sent_to_switch_to_deploy() -> None:
    class Detector(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="detector")
            self.block = RepVGGBlock(8, 2)

        def call(self, images: Any) -> Any:
            return self.block(images)

    model = Detector()
    model(np.zeros((1, 8, 8, 3), "float32"))
    with pytest.raises(
        ConversionError, match=r"'detector' is a subclassed model \(Detector\).*switch_to_deploy\(model\)"
    ):
        reparameterize(model)


def test_a_model_without_weights() -> None:
    with pytest.raises(ConversionError, match=r"'early' has no weights yet\. Give it an Input layer"):
        reparameterize(keras.Sequential([RepVGGBlock(8)], name="early"))


# What the check before the hand-over catches


def sabotage(monkeypatch: pytest.MonkeyPatch, name: str, factor: float) -> None:
    """From now on the folded kernel of the block called `name` is wrong."""
    folded = RepVGGBlock.folded

    def wrong(block: RepVGGBlock) -> fold.Linear:
        linear = folded(block)
        return fold.Linear(linear.kernel * factor, linear.bias) if block.name == name else linear

    monkeypatch.setattr(RepVGGBlock, "folded", wrong)


@pytest.mark.parametrize("name", ["stage0", pytest.param("stage2_block1", marks=pytest.mark.backends), "stage4_block0"])
def test_a_wrong_fold_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    model = trained_like(small_network(name="mine"))
    sabotage(monkeypatch, name, 1.01)
    with pytest.raises(
        VerificationError, match=rf"differs from 'mine' .* not handed over\. The worst block is '{name}'"
    ):
        reparameterize(model)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_wrong_fold_is_refused_at_16_bits_too(monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    """1 % is lost in bfloat16's noise, and not in float32, in which both forms are compared."""
    model = trained_like(small_network(dtype=policy))
    sabotage(monkeypatch, "stage3_block1", 1.01)
    with pytest.raises(VerificationError, match="The worst block is 'stage3_block1'"):
        reparameterize(model)


def test_a_fault_that_later_blocks_hide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where attention is nearly shut, the logits hardly depend on the image, so a faulty stem does not show in them."""
    model = trained_like(small_network(squeeze_excite=SqueezeExcite("before_activation", 4)))
    for layer in model.layers:
        if isinstance(layer, RepVGGBlock) and layer.attention is not None:
            layer.attention.up.bias.assign(np.full(layer.filters, -3.0))
    sabotage(monkeypatch, "stage0", 1.01)
    with pytest.raises(VerificationError, match="stage0"):
        reparameterize(model)


def test_a_forgotten_identity_branch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = trained_like(small_network())
    monkeypatch.setattr(
        fold, "identity_kernel", lambda channels, groups, size: np.zeros((size, size, channels, channels))
    )
    with pytest.raises(VerificationError, match=r"The worst block is 'stage[23]_block1'"):
        reparameterize(model)


def test_the_limit_can_be_set() -> None:
    with pytest.raises(VerificationError, match="limit 1e-12"):
        reparameterize(trained_like(small_network()), rtol=1e-12)


def test_values_that_are_not_finite_are_refused() -> None:
    model = trained_like(small_network())
    model.get_layer("stage2_block0").conv3x3.norm.gamma.assign(np.full(16, np.nan))
    with pytest.raises(VerificationError, match="not handed over"):
        reparameterize(model)
