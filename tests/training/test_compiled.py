"""Loss, decay and schedule: what a recipe says is what a step does."""

import keras
import numpy as np
import pytest

import repvgg
from helpers import random_images, small_network, to_numpy, trained_like, values_of
from repvgg.base.errors import InputError
from repvgg.training.compiled import compile_for, decayed_variables
from repvgg.training.optimizers import make_optimizer
from repvgg.training.recipe import Recipe

SETTINGS = {"epochs": 4, "batch_size": 8, "learning_rate": 3.2, "weight_decay": 0.02}
"""A peak rate of 0.1."""


def batch() -> tuple[np.ndarray, np.ndarray]:
    return random_images((8, 32, 32, 3)), np.eye(5, dtype=np.float32)[np.arange(8) % 5]


def network(**options: object) -> object:
    return trained_like(small_network(input_shape=(32, 32, 3), **options))


def test_what_decays() -> None:
    """Kernels and the identity branches' scales; the network has two identity branches and 7 blocks."""
    paths = [variable.path for variable in decayed_variables(network())]
    assert sum(path.endswith("kernel") for path in paths) == 2 * 7 + 1
    assert sum(path.endswith("identity/gamma") for path in paths) == 2
    assert len(paths) == 17


@pytest.mark.backends
def test_decay_is_coupled_as_in_torch() -> None:
    """Two steps of PyTorch's SGD rule, written out, from the gradients of the same network without decay."""
    images, targets = batch()
    plain, decayed = network(), network()
    decayed.set_weights(plain.get_weights())
    keys = {variable.path: index for index, variable in enumerate(plain.trainable_variables)}
    chosen = {keys[variable.path] for variable in decayed_variables(plain)}
    without = compile_for(plain, Recipe(**{**SETTINGS, "weight_decay": 0}), 100)
    with_decay = compile_for(decayed, Recipe(**SETTINGS), 100)
    before = [to_numpy(variable).copy() for variable in plain.trainable_variables]
    rate = 0.1

    without.train_on_batch(images, targets)
    with_decay.train_on_batch(images, targets)

    for index, (start, free, pulled) in enumerate(
        zip(before, plain.trainable_variables, decayed.trainable_variables, strict=True)
    ):
        gradient = (start - to_numpy(free)) / rate
        wanted = start - rate * (gradient + (0.02 * start if index in chosen else 0))
        # Roundings of a difference of nearly equal weights, over the rate.
        np.testing.assert_allclose(to_numpy(pulled), wanted, atol=3e-6 * max(1, np.abs(start).max()))


def test_adamw_decays_past_the_gradient() -> None:
    """The same variables as SGD, by the rate times the decay, whatever the gradient is."""
    images, targets = batch()
    free, decayed = network(), network()
    decayed.set_weights(free.get_weights())
    chosen = {variable.path for variable in decayed_variables(free)}
    before = {variable.path: to_numpy(variable).copy() for variable in free.trainable_variables}
    for model, decay in ((free, 0.0), (decayed, 0.5)):
        recipe = Recipe(**{**SETTINGS, "weight_decay": decay, "learning_rate": 0.32}, optimizer="adamw")
        compile_for(model, recipe, 100).train_on_batch(images, targets)
    for one, other in zip(free.trainable_variables, decayed.trainable_variables, strict=True):
        start = before[one.path]
        pulled = 0.01 * 0.5 * start if one.path in chosen else 0
        # Adam's first step is the rate in whatever direction, so a gradient's roundings do not show in it.
        np.testing.assert_allclose(to_numpy(one) - to_numpy(other), pulled, atol=2e-4 * max(1, np.abs(start).max()))
        assert one.path not in chosen or np.abs(pulled).max() > 1e-4


@pytest.mark.backends
def test_custom_l2_takes_the_place_of_the_branches_decay() -> None:
    images, targets = batch()
    model = network()
    recipe = Recipe(**SETTINGS, custom_l2=True)
    trainer = compile_for(model, recipe, 100)
    plain = compile_for(model, Recipe(**{**SETTINGS, "weight_decay": 0}), 100)
    blocks = [layer for layer in model.layers if isinstance(layer, repvgg.RepVGGBlock)]
    tensors = [keras.ops.convert_to_tensor(value) for value in (images, targets)]
    outputs = model(tensors[0], training=False)

    found = to_numpy(trainer.compute_loss(tensors[0], tensors[1], outputs)) - to_numpy(
        plain.compute_loss(tensors[0], tensors[1], outputs)
    )

    classifier = model.get_layer("classifier").kernel
    scales = [block.identity.gamma for block in blocks if block.identity is not None]
    expected = sum(float(to_numpy(block.get_custom_L2())) for block in blocks)
    expected += sum(float((to_numpy(variable) ** 2).sum()) for variable in [classifier, *scales])
    assert found == pytest.approx(0.5 * 0.02 * expected, rel=1e-4)


def test_custom_l2_needs_blocks_that_have_one() -> None:
    with pytest.raises(InputError, match="`custom_l2` of a recipe must be off for adamw"):
        Recipe(**SETTINGS, custom_l2=True, optimizer="adamw")
    with pytest.raises(InputError, match="`custom_l2` is defined for RepVGGBlock"):
        compile_for(repvgg.reparameterize(network()), Recipe(**SETTINGS, custom_l2=True), 10)


def test_validation_loss_has_no_decay_in_it() -> None:
    images, targets = batch()
    trainer = compile_for(network(), Recipe(**SETTINGS), 10)
    logs = trainer.evaluate(images, targets, verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(logs["cross_entropy"], rel=1e-5)


@pytest.mark.parametrize("warmup", [0, 1])
def test_schedule(warmup: int) -> None:
    optimizer = make_optimizer(Recipe(**SETTINGS, warmup_epochs=warmup), 10)
    rates = []
    for step in range(41):
        optimizer.iterations.assign(step)
        rates.append(float(to_numpy(optimizer.learning_rate)))
    if warmup:
        np.testing.assert_allclose(rates[:11], np.arange(11) / 100, atol=1e-6)
    expected = 0.05 * (1 + np.cos(np.pi * np.arange(41 - 10 * warmup) / (40 - 10 * warmup)))
    np.testing.assert_allclose(rates[10 * warmup :], expected, atol=1e-6)


@pytest.mark.backends
def test_auxiliary_losses() -> None:
    model = network(squeeze_excite=repvgg.SqueezeExcite("after_activation", 4), auxiliary_heads=True)
    images, targets = batch()
    trainer = compile_for(model, Recipe(**{**SETTINGS, "weight_decay": 0}, auxiliary_weight=0.3), 10)
    logs = trainer.evaluate(images, dict.fromkeys(model.output, targets), verbose=0, return_dict=True)
    parts = {name: logs[f"{name}_loss"] for name in model.output}
    assert logs["loss"] == pytest.approx(0.7 * parts["main"] + 0.3 * sum(parts.values()), rel=1e-5)


def test_average_stays_apart_until_it_is_asked_for() -> None:
    images, targets = batch()
    trainer = compile_for(network(), Recipe(**SETTINGS, ema=0.5), 10)
    trainer.fit(images, targets, batch_size=8, epochs=2, verbose=0)
    first = values_of(trainer)
    trainer.optimizer.finish_average(trainer.trainable_variables)
    moved = [np.abs(a - b).max() for a, b in zip(first, values_of(trainer), strict=True)]
    assert max(moved) > 1e-4
