"""A plain network trained by RepOptimizer is the sum of branches trained by an ordinary one; and what is kept of it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import repvgg
from helpers import BACKEND, Array, infer, random_images, relative_error, to_numpy, values_of
from repvgg.base.errors import InputError, UnknownNameError
from repvgg.blocks import BLOCKS
from repvgg.blocks.csla import UPDATE_RULES, summed_kernel
from repvgg.checkpoints.scales import Scales, scaled_blocks, scales_of
from repvgg.training.compiled import TrainingModel, compile_for, decayed_variables
from repvgg.training.recipe import Recipe
from repvgg.training.rep_optimizer import RepOptimizer, is_fresh

GOLDEN = Path(__file__).parents[1] / "golden" / "repopt.npz"
STEPS = 3

SHAPES: dict[str, dict[str, Any]] = {
    "identity": {"filters": 4},
    "wider": {"filters": 6},
    "strided": {"filters": 4, "strides": 2},
    "groups": {"filters": 4, "groups": 2},
    "groups, strided, wider": {"filters": 6, "groups": 2, "strides": 2},
    "no identity": {"filters": 4, "identity_branch": False},
}


def cases(*options: Any) -> list[Any]:
    """Every shape, with these options in turn; other backends than TensorFlow, which compile longer, get two."""
    marked = ("groups, strided, wider",) if BACKEND == "jax" else ("identity", "groups, strided, wider")
    return [
        pytest.param(name, options[place % len(options)], marks=pytest.mark.backends if name in marked else ())
        for place, name in enumerate(SHAPES)
    ]


def network(kind: str, options: dict[str, Any]) -> Any:
    """A block between a convolution of its own and a classifier."""
    inputs = keras.Input((9, 8, 4))
    block = BLOCKS[kind](**options, name="block")
    features = keras.layers.GlobalAveragePooling2D()(block(inputs))
    return keras.Model(inputs, keras.layers.Dense(3, name="classifier")(features))


def pair(options: dict[str, Any]) -> tuple[Any, Any, Scales]:
    """The sum of branches with random constant factors of either sign, and the plain network that is the same."""
    generator = np.random.default_rng(5)
    csla, plain = (network(kind, options) for kind in ("LinearAdditionBlock", "RepOptVGGBlock"))
    branches, block = (model.get_layer("block") for model in (csla, plain))
    for path in ("conv3x3.scale1.scale", "conv1x1.scale1.scale", "identity.scale"):
        if path != "identity.scale" or branches.identity is not None:
            scale = branches.variable(path)
            scale.assign(generator.uniform(0.4, 1.6, scale.shape) * generator.choice([-1, 1], scale.shape))
    scales = scales_of(csla)
    branches.conv3x3.scale1.trainable = branches.conv1x1.scale1.trainable = False
    for theirs, ours in zip(branches.norm.weights, block.conv3x3.norm.weights, strict=True):
        ours.assign(theirs)
    plain.get_layer("classifier").set_weights(csla.get_layer("classifier").get_weights())
    ((_, factors),) = scaled_blocks(plain, scales)
    kernels = {path: to_numpy(branches.variable(path)) for path in ("conv3x3.conv1.kernel", "conv1x1.conv1.kernel")}
    block.conv3x3.kernel.assign(summed_kernel(branches.kind, branches.shape, kernels, factors))
    return csla, plain, scales


def trained(model: Any, optimizer: Any, *, decay_in_loss: float = 0) -> Array:
    """Answers in inference after some steps."""
    recipe = Recipe(epochs=1, weight_decay=decay_in_loss)
    trainer = TrainingModel(model.input, model.output, recipe=recipe)
    # Compiling takes longer than the steps, and other tests here do it.
    trainer.compile(optimizer, keras.losses.CategoricalCrossentropy(from_logits=True), run_eagerly=True)
    for step in range(STEPS):
        trainer.train_on_batch(random_images((6, 9, 8, 4), step, "float64"), np.eye(3)[np.arange(6) % 3])
    answers: Array = infer(model, random_images((4, 9, 8, 4), 99, "float64"))
    return answers


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "nesterov"), cases(True, False))
def test_sgd_trains_the_sum_of_branches(name: str, nesterov: bool) -> None:
    csla, plain, scales = pair(SHAPES[name])
    before = infer(plain, random_images((4, 9, 8, 4), 99, "float64"))
    assert relative_error(infer(csla, random_images((4, 9, 8, 4), 99, "float64")), before) < 1e-12
    rule = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": nesterov}
    optimizer = RepOptimizer(plain, scales, reinitialize=False, coupled_weight_decay=0.05, **rule)
    wanted = trained(csla, keras.optimizers.SGD(**rule), decay_in_loss=0.05)
    found = trained(plain, optimizer)
    assert relative_error(wanted, found) < 1e-10
    # Far from where it began.
    assert relative_error(wanted, before) > 0.1


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("name", "decay"), cases(0.1, 0.0))
def test_adamw_trains_the_sum_of_branches(name: str, decay: float) -> None:
    """As far as epsilon lets it, which is added to what the branches' gradients differ in."""
    csla, plain, scales = pair(SHAPES[name])
    rule = {"learning_rate": 0.02, "weight_decay": decay, "epsilon": 1e-16}
    theirs = keras.optimizers.AdamW(**rule)
    kept = {id(variable) for variable in decayed_variables(csla)}
    theirs.exclude_from_weight_decay([one for one in csla.trainable_variables if id(one) not in kept])
    wanted = trained(csla, theirs)
    found = trained(plain, RepOptimizer(plain, scales, "adamw", reinitialize=False, **rule))
    assert relative_error(wanted, found) < 1e-8


@pytest.mark.usefixtures("double")
def test_ordinary_optimizers_train_something_else() -> None:
    csla, plain, _ = pair(SHAPES["identity"])
    rule = {"learning_rate": 0.1, "momentum": 0.9}
    first, second = (trained(model, keras.optimizers.SGD(**rule)) for model in (csla, plain))
    assert relative_error(first, second) > 0.005


@pytest.mark.backends
@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_three_steps_of_the_authors(rule: str, tmp_path: Path) -> None:
    """Their network, factors, images and labels; all weights and statistics afterwards."""
    with np.load(GOLDEN) as arrays:
        golden = {key: arrays[key] for key in arrays}

    def part(prefix: str) -> dict[str, Array]:
        return {key.removeprefix(prefix): array for key, array in golden.items() if key.startswith(prefix)}

    save_file(part("target/"), tmp_path / "target.safetensors")
    save_file(part("search/"), tmp_path / "search.safetensors")
    model = repvgg.load_checkpoint(tmp_path / "target.safetensors")
    scales = repvgg.load_scales(tmp_path / "search.safetensors")
    options: dict[str, Any] = {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "coupled_weight_decay": 0.01}
    if rule == "adamw":
        # Keras adds epsilon elsewhere; it is as good as 0 in both.
        options = {"learning_rate": 0.01, "weight_decay": 0.01, "epsilon": 1e-12}
    model.compile(
        RepOptimizer(model, scales, rule, reinitialize=False, **options),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for _ in range(3):
        model.train_on_batch(golden["images"], golden["labels"])
    repvgg.save_checkpoint(model, tmp_path / "trained.safetensors", dialect="repopt")
    found = load_file(tmp_path / "trained.safetensors")
    for name, wanted in part(f"{rule}/").items():
        # Keras keeps some of what it calculates with in single precision, such as betas and rates.
        assert relative_error(wanted, found[name]) < 2e-6, name
    moved = [relative_error(array, golden[f"target/{name}"]) for name, array in part(f"{rule}/").items()]
    assert min(moved) > 1e-3


@pytest.mark.backends
@pytest.mark.parametrize("rule", UPDATE_RULES)
def test_it_is_saved_with_its_model_and_goes_on(rule: str, tmp_path: Path) -> None:
    model = small("RepOptVGGBlock")
    images, labels = random_images((4, 32, 32, 3)), np.arange(4) % 3
    optimizer = RepOptimizer(model, scales_of(small("LinearAdditionBlock")), rule, learning_rate=0.01)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.train_on_batch(images, labels)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is type(optimizer)
    assert again.optimizer.get_config() == optimizer.get_config()
    for one in (model, again):
        one.train_on_batch(images, labels)
    for first, second in zip(values_of(model), values_of(again), strict=True):
        np.testing.assert_array_equal(first, second)


def small(block: str, **options: Any) -> Any:
    return repvgg.RepVGG(
        [1, 2, 1, 1], [0.125, 0.125, 0.0625, 0.03125], num_classes=3, input_shape=(32, 32, 3), block=block, **options
    )


@pytest.mark.backends
@pytest.mark.parametrize("optimizer", UPDATE_RULES)
def test_a_recipe_of_everything(optimizer: str) -> None:
    """Averaged weights, accumulated and limited gradients: a multiplied step is where nothing else is."""
    recipe = Recipe(
        epochs=2, batch_size=4, learning_rate=0.6, optimizer=optimizer, ema=0.5, accumulate=2, clip_norm=0.1
    )
    model = small("RepOptVGGBlock")
    before = values_of(model)
    trainer = compile_for(model, recipe, 4, scales_of(small("LinearAdditionBlock")))
    images, targets = random_images((4, 32, 32, 3)), np.eye(3, dtype=np.float32)[np.arange(4) % 3]
    kernel = model.get_layer("stage1_block0").conv3x3.kernel
    place = next(index for index, one in enumerate(model.weights) if one is kernel)
    trainer.train_on_batch(images, targets)
    np.testing.assert_array_equal(values_of(model)[place], before[place])
    trainer.train_on_batch(images, targets)
    moved = np.abs(values_of(model)[place] - before[place])
    assert moved.max() > 1e-5
    assert np.isfinite(moved).all()


def test_decay_is_the_optimizers_alone() -> None:
    """No part of the loss, where it would be multiplied too."""
    images, targets = random_images((4, 32, 32, 3)), np.eye(3, dtype=np.float32)[np.arange(4) % 3]
    model = small("RepOptVGGBlock")
    trainer = compile_for(model, Recipe(epochs=1, weight_decay=100), 4, scales_of(small("LinearAdditionBlock")))
    logits = model(images, training=False)
    plain = compile_for(model, Recipe(epochs=1, weight_decay=0), 4)
    tensor = keras.ops.convert_to_tensor(targets)
    assert to_numpy(trainer.compute_loss(None, tensor, logits)) == to_numpy(plain.compute_loss(None, tensor, logits))


def test_initial_kernels_are_fresh_sums() -> None:
    model, scales = small("RepOptVGGBlock"), scales_of(small("LinearAdditionBlock"))
    before = {layer.name: to_numpy(layer.conv3x3.kernel).copy() for layer in model.layers if hasattr(layer, "conv3x3")}
    RepOptimizer(model, scales)
    for name, start in before.items():
        change = to_numpy(model.get_layer(name).conv3x3.kernel) - start
        assert np.abs(change[1, 1]).max() > 0.05
        change[1, 1] = 0
        np.testing.assert_allclose(change, 0, atol=1e-7)
    diagonal = np.diag(to_numpy(model.get_layer("stage2_block1").conv3x3.kernel)[1, 1])
    assert diagonal.mean() > 0.7


def test_a_trained_network_is_not_thrown_away() -> None:
    model, scales = small("RepOptVGGBlock"), scales_of(small("LinearAdditionBlock"))
    assert is_fresh(model)
    model.get_layer("stage0").conv3x3.norm.moving_mean.assign(np.full(8, 0.1))
    assert not is_fresh(model)
    before = values_of(model)
    with pytest.raises(InputError, match=r"was trained already.*reinitialize=False"):
        RepOptimizer(model, scales)
    RepOptimizer(model, scales, reinitialize=False)
    for first, second in zip(before, values_of(model), strict=True):
        np.testing.assert_array_equal(first, second)


def test_frozen_blocks_have_no_scales() -> None:
    model, scales = small("RepOptVGGBlock"), scales_of(small("LinearAdditionBlock"))
    model.get_layer("stage0").trainable = False
    kernels = RepOptimizer(model, scales).get_config()["kernels"]
    assert len(kernels) == 5
    assert all(not kernel["path"].startswith("stage0/") for kernel in kernels)


def test_what_does_not_fit() -> None:
    model, scales = small("RepOptVGGBlock"), scales_of(small("LinearAdditionBlock"))
    with pytest.raises(UnknownNameError, match=r"no update rule called 'adam'\. Did you mean adamw"):
        RepOptimizer(model, scales, "adam")
    with pytest.raises(InputError, match="has no blocks that are trained by scales"):
        RepOptimizer(small("RepVGGBlock"), scales)
    optimizer = RepOptimizer(model, scales)
    with pytest.raises(InputError, match="0 trainable variables called 'stage0/conv3x3/kernel'"):
        optimizer.build(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).trainable_variables)
