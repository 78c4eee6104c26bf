"""Blocks that are switched in place, inside models of any structure."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import (
    SQUEEZE_EXCITE,
    assert_same_values,
    infer,
    random_images,
    relative_error,
    to_numpy,
    trained_like,
    values_of,
)
from repvgg.base.errors import ConversionError, VerificationError
from repvgg.blocks import RepVGGBlock
from repvgg.conversion import switch_to_deploy


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """Blocks as attributes, in a list and in a layer of another kind: a structure that Keras does not see."""

    def __init__(self, deploy: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.deploy = deploy
        self.first = RepVGGBlock(8, 2, deploy=deploy, name="first")
        settings = SQUEEZE_EXCITE["before"]
        self.rest = [RepVGGBlock(8, squeeze_excite=settings, deploy=deploy, name=f"rest{index}") for index in range(2)]
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.classifier = keras.layers.Dense(3)

    def call(self, images: Any, training: bool = False) -> Any:
        x = self.first(images, training=training)
        for block in self.rest:
            x = x + block(x, training=training)
        return self.classifier(self.pool(x))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "deploy": self.deploy}


def make_subclassed(*, seed: int = 0, deploy: bool = False) -> Subclassed:
    model = Subclassed(deploy=deploy)
    model(keras.ops.zeros((1, 16, 16, 3)))
    return trained_like(model, seed)  # type: ignore[no-any-return]


@pytest.mark.backends
@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_converted_in_place_and_saved(tmp_path: Path, ending: str) -> None:
    model = make_subclassed()
    images = random_images((3, 17, 16, 3))
    expected = infer(model, images)
    switch_to_deploy(model)
    assert all(block.deploy for block in (model.first, *model.rest))
    # kernel and bias of three convolutions, four weights of each of two attentions, and the classifier's two.
    assert len(model.weights) == 3 * 2 + 2 * 4 + 2
    found = infer(model, images)
    assert relative_error(expected, found) < 1e-5

    path = tmp_path / f"model{ending}"
    if ending == ".keras":
        model.save(path)
        loaded = keras.saving.load_model(path)
    else:
        model.save_weights(path)
        loaded = make_subclassed(seed=5)
        loaded.load_weights(path)
    assert loaded.first.deploy
    np.testing.assert_array_equal(infer(loaded, images), found)


@pytest.mark.backends
def test_the_training_form_is_saved_too(tmp_path: Path) -> None:
    model = make_subclassed()
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert_same_values(values_of(model), values_of(loaded))
    assert not loaded.first.deploy


def test_deploy_weights_fit_a_block_built_in_deploy_form(tmp_path: Path) -> None:
    model = make_subclassed()
    switch_to_deploy(model)
    model.save_weights(tmp_path / "model.weights.h5")
    other = make_subclassed(seed=3, deploy=True)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same_values(values_of(model), values_of(other))


def test_training_weights_do_not_fit_the_deploy_form(tmp_path: Path) -> None:
    make_subclassed().save_weights(tmp_path / "model.weights.h5")
    # Keras gathers what the layers raise into a ValueError of its own.
    with pytest.raises(ValueError, match="is in its deploy form, and the file holds the training form"):
        make_subclassed(deploy=True).load_weights(tmp_path / "model.weights.h5")


def test_predict_after_a_switch_runs_the_new_form() -> None:
    """`predict` keeps a compiled function, which must not go on with weights that are gone."""
    model = make_subclassed()
    images = random_images((2, 16, 16, 3))
    expected = model.predict(images, verbose=0)
    switch_to_deploy(model)
    assert relative_error(expected, model.predict(images, verbose=0)) < 1e-5


def test_a_switched_model_can_be_trained_on() -> None:
    model = make_subclassed()
    switch_to_deploy(model)
    model.compile("sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = to_numpy(model.first.reparam.kernel).copy()
    model.train_on_batch(random_images((4, 16, 16, 3)), np.array([0, 1, 2, 0]))
    assert not np.array_equal(before, to_numpy(model.first.reparam.kernel))


def test_nothing_is_switched_if_one_block_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_subclassed()
    folded = RepVGGBlock.folded

    def sabotaged(block: Any) -> Any:
        linear = folded(block)
        return type(linear)(linear.kernel * 1.01, linear.bias) if block.name == "rest1" else linear

    monkeypatch.setattr(RepVGGBlock, "folded", sabotaged)
    before = values_of(model)
    with pytest.raises(VerificationError, match="The two forms of block 'rest1' differ"):
        switch_to_deploy(model)
    assert_same_values(before, values_of(model))


def test_switching_needs_weights_and_blocks() -> None:
    with pytest.raises(ConversionError, match="Block 'early' has no weights yet"):
        RepVGGBlock(8, name="early").switch_to_deploy()
    with pytest.raises(ConversionError, match="has no weights yet"):
        RepVGGBlock(8).get_equivalent_kernel_bias()
    with pytest.raises(ConversionError, match="contains no re-parameterizable block"):
        switch_to_deploy(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
    with pytest.raises(ConversionError, match="A Keras model was expected, and a int came"):
        switch_to_deploy(7)


def test_switching_twice_changes_nothing() -> None:
    block = make_subclassed().rest[0]
    block.switch_to_deploy()
    before = values_of(block)
    block.switch_to_deploy()
    assert_same_values(before, values_of(block))
