"""Every kind of block in both forms, against NumPy, against PyTorch, and what is compiled of it."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import (
    BACKEND,
    SQUEEZE_EXCITE,
    Array,
    assert_same_values,
    convolve,
    detached,
    gradients,
    infer,
    normalize,
    random_images,
    relative_error,
    run_python,
    to_numpy,
    trained_like,
    values_of,
)
from repvgg.base.errors import ConversionError, InputError, VerificationError
from repvgg.blocks import BLOCKS, RepVGGBlock, SinglePath
from repvgg.conversion import switch_to_deploy
from sampling import pairwise

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
"""Relative errors: some hundred roundings of each dtype, for sums of at most 9 * 8 products in another order."""

DTYPES = ["float32", "float64"] if BACKEND == "tensorflow" else ["float32"]
"""JAX calculates in float64 only if it is told so before it starts; Keras on torch takes means in float32 even then."""

every_kind = pytest.mark.parametrize("kind", BLOCKS)


def make_block(kind: str, *arguments: Any, channels: int = 8, **options: Any) -> Any:
    block = BLOCKS[kind](*arguments, **options)
    block.build((None, None, None, channels))
    return trained_like(block)


def numpy_norm(norm: Any, images: Array) -> Array:
    gamma, beta, mean, variance = (
        to_numpy(weight).astype("float64") for weight in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
    )
    return normalize(images, gamma, beta, mean, variance, norm.epsilon)


def numpy_squeeze_excite(attention: Any, images: Array) -> Array:
    down, down_bias, up, up_bias = (array.astype("float64") for array in values_of(attention))
    hidden = np.maximum(images.mean(axis=(1, 2)) @ down[0, 0] + down_bias, 0)
    weights = 1 / (1 + np.exp(-(hidden @ up[0, 0] + up_bias)))
    result: Array = images * weights[:, None, None, :]
    return result


def numpy_activation(block: Any, outputs: Array) -> Array:
    """ReLU, and channel attention on its side of it."""
    position = block.squeeze_excite.position if block.squeeze_excite else None
    if position == "before_activation":
        outputs = numpy_squeeze_excite(block.attention, outputs)
    outputs = np.maximum(outputs, 0)
    return numpy_squeeze_excite(block.attention, outputs) if position == "after_activation" else outputs


def numpy_repvgg_block(block: Any, images: Array) -> Array:
    """The block of the paper, branch by branch, in float64."""
    images = images.astype("float64")
    dense, point = (to_numpy(branch.kernel).astype("float64") for branch in (block.conv3x3, block.conv1x1))
    outputs = numpy_norm(
        block.conv3x3.norm, convolve(images, dense, block.strides, block.groups, block.dilation_rate)
    ) + numpy_norm(block.conv1x1.norm, convolve(images, point, block.strides, block.groups))
    if block.identity is not None:
        outputs = outputs + numpy_norm(block.identity, images)
    return numpy_activation(block, outputs)


def numpy_qarepvgg_block(block: Any, images: Array) -> Array:
    """QARepVGG's, in float64: only the 3x3 branch is normalized, and then the sum."""
    images = images.astype("float64")
    dense, point = (to_numpy(branch.kernel).astype("float64") for branch in (block.conv3x3, block.conv1x1))
    outputs = convolve(images, dense, block.strides, block.groups, block.dilation_rate)
    outputs = numpy_norm(block.conv3x3.norm, outputs) + convolve(images, point, block.strides, block.groups)
    if block.strides == 1 and images.shape[-1] == block.filters:
        outputs = outputs + images
    return numpy_activation(block, numpy_norm(block.norm, outputs))


REFERENCES = {"RepVGGBlock": numpy_repvgg_block, "QARepVGGBlock": numpy_qarepvgg_block}
"""A new kind of block needs a line here: its formula, written once more without Keras."""


SHAPES = {
    "with identity": (1, 8),
    "widening": (1, 4),
    "halving": (2, 8),
    "halving and widening": (2, 4),
    "a third": (3, 8),
}
"""Strides, and channels of the input; 8 come out."""


@pytest.mark.backends
@pytest.mark.processor
@pairwise(
    {
        "kind": BLOCKS,
        "shape": SHAPES,
        "groups": (1, 2, 4),
        "attention": SQUEEZE_EXCITE,
        "dtype": DTYPES,
    },
    # Attention sees nothing but the sum, so what went into it need not be varied once more.
    where=lambda shape, groups, attention, **_: attention == "none" or (shape != "a third" and groups < 4),
)
def test_both_forms_give_the_same(kind: str, shape: str, groups: int, attention: str, dtype: str) -> None:
    strides, channels = SHAPES[shape]
    block = make_block(
        kind, 8, strides, groups, channels=channels, squeeze_excite=SQUEEZE_EXCITE[attention], dtype=dtype
    )
    even, odd = (random_images((2, size, size + 2, channels), dtype=dtype) for size in (8, 9))
    expected = [infer(block, images) for images in (even, odd)]
    for images, outputs in zip((even, odd), expected, strict=True):
        assert outputs.shape == (2, -(-images.shape[1] // strides), -(-images.shape[2] // strides), 8)
        assert outputs.dtype == dtype
        assert relative_error(REFERENCES[kind](block, images), outputs) < TOLERANCES[dtype]

    stock = SinglePath.of_block(block)
    stock(keras.ops.convert_to_tensor(even))
    stock.copy_weights(block)
    assert all(type(layer).__module__.startswith("keras.") for layer in stock.layers.values())
    block.switch_to_deploy()
    for images, outputs in zip((even, odd), expected, strict=True):
        assert relative_error(outputs, detached(stock(keras.ops.convert_to_tensor(images)))) < TOLERANCES[dtype]
        assert relative_error(outputs, infer(block, images)) < TOLERANCES[dtype]


@pytest.mark.backends
@pairwise({"kind": BLOCKS, "dilation_rate": (2, 3), "groups": (1, 2), "dtype": DTYPES})
def test_dilation(kind: str, dilation_rate: int, groups: int, dtype: str) -> None:
    block = make_block(kind, 8, groups=groups, dilation_rate=dilation_rate, dtype=dtype)
    images = random_images((2, 11, 10, 8), dtype=dtype)
    expected = infer(block, images)
    assert relative_error(REFERENCES[kind](block, images), expected) < TOLERANCES[dtype]
    stock = SinglePath.of_block(block)
    stock(keras.ops.convert_to_tensor(images))
    stock.copy_weights(block)
    assert relative_error(expected, detached(stock(keras.ops.convert_to_tensor(images)))) < TOLERANCES[dtype]


@pytest.mark.backends
@pytest.mark.processor
@pairwise({"kind": BLOCKS, "strides": (1, 2), "groups": (1, 2), "attention": SQUEEZE_EXCITE})
def test_channels_first(kind: str, strides: int, groups: int, attention: str) -> None:
    squeeze_excite = SQUEEZE_EXCITE[attention]
    last = make_block(kind, 8, strides, groups, squeeze_excite=squeeze_excite)
    first = BLOCKS[kind](8, strides, groups, squeeze_excite=squeeze_excite, data_format="channels_first")
    first.build((None, 8, None, None))
    first.set_weights(values_of(last))
    images = random_images((2, 7, 10, 8))
    turned = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    expected = infer(last, images).transpose(0, 3, 1, 2)
    assert tuple(first.compute_output_shape((2, 8, 7, 10))) == expected.shape
    assert relative_error(expected, infer(first, turned)) < 1e-5

    in_training = [
        to_numpy(detached(block(keras.ops.convert_to_tensor(batch), training=True)))
        for block, batch in ((last, images), (first, turned))
    ]
    assert relative_error(in_training[0].transpose(0, 3, 1, 2), in_training[1]) < 1e-5
    for mine, other in zip(values_of(last), values_of(first), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-6)

    expected = infer(first, turned)
    first.switch_to_deploy()
    assert relative_error(expected, infer(first, turned)) < 1e-5


@every_kind
def test_a_linear_block_and_other_activations(kind: str) -> None:
    images = random_images((1, 6, 6, 8))
    linear = make_block(kind, 8, activation=None)
    assert infer(linear, images).min() < 0
    smooth = make_block(kind, 8, activation="silu")
    expected = infer(smooth, images)
    smooth.switch_to_deploy()
    assert relative_error(expected, infer(smooth, images)) < 1e-5


# Derived quantities that gradients flow through


@pytest.mark.backends
@pytest.mark.parametrize("groups", [1, 2])
def test_the_equivalent_kernel_is_differentiable(rng: np.random.Generator, groups: int) -> None:
    """Against the derivatives on paper: the kernel is linear in each branch's kernel and in each gamma."""
    block = make_block("RepVGGBlock", 8, groups=groups)
    on_kernel, on_bias = rng.normal(size=(3, 3, 8 // groups, 8)), rng.normal(size=8)
    weigh_kernel, weigh_bias = (keras.ops.convert_to_tensor(array, "float32") for array in (on_kernel, on_bias))

    def loss() -> Any:
        kernel, bias = block.get_equivalent_kernel_bias()
        return keras.ops.sum(kernel * weigh_kernel) + keras.ops.sum(bias * weigh_bias)

    def of_norm(norm: Any, kernel: Array, weights: Array) -> tuple[Array, Array]:
        """The branch's scale, and the derivative with respect to its gamma."""
        deviation = np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
        slope = ((kernel * weights).sum(axis=(0, 1, 2)) - on_bias * to_numpy(norm.moving_mean)) / deviation
        return to_numpy(norm.gamma) / deviation, slope

    centre = on_kernel[1:2, 1:2]
    same = np.zeros((1, 1, 8 // groups, 8))
    same[0, 0, np.arange(8) % (8 // groups), np.arange(8)] = 1
    dense_scale, dense_gamma = of_norm(block.conv3x3.norm, to_numpy(block.conv3x3.kernel), on_kernel)
    point_scale, point_gamma = of_norm(block.conv1x1.norm, to_numpy(block.conv1x1.kernel), centre)
    _, identity_gamma = of_norm(block.identity, same, centre)
    variables, expected = zip(
        (block.conv3x3.kernel, on_kernel * dense_scale),
        (block.conv1x1.kernel, centre * point_scale),
        (block.conv3x3.norm.gamma, dense_gamma),
        (block.conv1x1.norm.gamma, point_gamma),
        (block.identity.gamma, identity_gamma),
        (block.identity.beta, on_bias),
        strict=True,
    )
    for wanted, found in zip(expected, gradients(loss, variables), strict=True):
        assert relative_error(wanted, found) < 1e-5


@pytest.mark.backends
@every_kind
def test_the_equivalent_kernel_is_what_the_block_calculates(kind: str) -> None:
    block = make_block(kind, 8, 2, 2, activation=None)
    images = random_images((2, 9, 8, 8))
    kernel, bias = (to_numpy(detached(part)) for part in block.get_equivalent_kernel_bias())
    assert relative_error(infer(block, images), convolve(images, kernel, 2, 2) + bias) < 1e-5
    block.switch_to_deploy()
    for before, after in zip((kernel, bias), block.get_equivalent_kernel_bias(), strict=True):
        assert relative_error(before, detached(after)) < 1e-5


@pytest.mark.backends
@pytest.mark.parametrize("groups", [1, 4])
def test_custom_l2(groups: int) -> None:
    """Value and derivatives by the official formula, in NumPy; the scales count as constants."""
    block = make_block("RepVGGBlock", 8, groups=groups)
    dense, point = (to_numpy(branch.kernel).astype("float64") for branch in (block.conv3x3, block.conv1x1))
    dense_scale, point_scale = (
        to_numpy(norm.gamma) / np.sqrt(to_numpy(norm.moving_variance) + norm.epsilon)
        for norm in (block.conv3x3.norm, block.conv1x1.norm)
    )
    centre = dense[1:2, 1:2]
    folded = centre * dense_scale + point * point_scale
    weights = dense_scale**2 + point_scale**2
    expected = (dense**2).sum() - (centre**2).sum() + (folded**2 / weights).sum()
    assert float(detached(block.get_custom_L2())) == pytest.approx(expected, rel=1e-5)

    on_dense = 2 * dense
    on_dense[1:2, 1:2] = 2 * folded * dense_scale / weights
    on_point = 2 * folded * point_scale / weights
    variables = [block.conv3x3.kernel, block.conv1x1.kernel, block.conv3x3.norm.gamma, block.conv1x1.norm.gamma]
    found = gradients(block.get_custom_L2, variables)
    assert relative_error(on_dense, found[0]) < 1e-5
    assert relative_error(on_point, found[1]) < 1e-5
    assert not found[2].any()
    assert not found[3].any()


def test_custom_l2_needs_branches() -> None:
    block = make_block("RepVGGBlock", 8, name="far")
    block.switch_to_deploy()
    with pytest.raises(ConversionError, match="Block 'far' is in its deploy form, which has no custom L2"):
        block.get_custom_L2()


# PyTorch


def torch_block(block: Any, channels: int) -> Any:
    """The same block of `torch.nn` modules, with the same weights."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Reference(nn.Module):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            shared = {"stride": block.strides, "groups": block.groups, "bias": False}
            pad = block.dilation_rate
            self.dense = nn.Conv2d(channels, block.filters, 3, padding=pad, dilation=pad, **shared)
            self.point = nn.Conv2d(channels, block.filters, 1, **shared)
            self.norms = nn.ModuleList(nn.BatchNorm2d(block.filters) for _ in range(3 if block.identity else 2))

        def forward(self, x: Any) -> Any:
            branches = [self.dense(x), self.point(x), x][: len(self.norms)]
            return nn.functional.relu(sum(norm(branch) for norm, branch in zip(self.norms, branches, strict=True)))

    reference = Reference()
    with torch.no_grad():
        for convolution, branch in ((reference.dense, block.conv3x3), (reference.point, block.conv1x1)):
            convolution.weight.copy_(torch.from_numpy(to_numpy(branch.kernel).transpose(3, 2, 0, 1).copy()))
        for norm, ours in zip(reference.norms, norms_of(block), strict=True):
            for name, weight in torch_names(ours).items():
                getattr(norm, name).copy_(torch.from_numpy(to_numpy(weight).copy()))
    return reference


def norms_of(block: Any) -> list[Any]:
    return [block.conv3x3.norm, block.conv1x1.norm, *([block.identity] if block.identity else [])]


def torch_names(norm: Any) -> dict[str, Any]:
    return {
        "weight": norm.gamma,
        "bias": norm.beta,
        "running_mean": norm.moving_mean,
        "running_var": norm.moving_variance,
    }


@pytest.mark.backends
@pytest.mark.parametrize(
    ("strides", "groups", "channels", "dilation_rate", "size"),
    [(1, 1, 8, 1, 6), (2, 1, 8, 1, 6), (2, 1, 8, 1, 5), (1, 4, 8, 1, 5), (2, 2, 4, 1, 6), (1, 1, 4, 2, 5)],
)
def test_training_is_torchs(strides: int, groups: int, channels: int, dilation_rate: int, size: int) -> None:
    """Outputs and running statistics after one batch in training mode, then outputs in inference mode.

    The batch is small, so that the unbiased variance PyTorch keeps is well apart from the biased one it divides by.
    """
    torch = pytest.importorskip("torch")
    block = make_block("RepVGGBlock", 8, strides, groups, channels=channels, dilation_rate=dilation_rate)
    reference = torch_block(block, channels)
    images = random_images((2, size, size, channels))
    in_torch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected = reference.train()(in_torch).numpy().transpose(0, 2, 3, 1)
        later = reference.eval()(in_torch).numpy().transpose(0, 2, 3, 1)
    outputs = block(keras.ops.convert_to_tensor(images), training=True)
    assert relative_error(expected, detached(outputs)) < 1e-5
    for norm, ours in zip(reference.norms, norms_of(block), strict=True):
        for name in ("running_mean", "running_var"):
            assert relative_error(getattr(norm, name).numpy(), torch_names(ours)[name]) < 1e-5
    assert relative_error(later, infer(block, images)) < 1e-5


@pytest.mark.backends
@pytest.mark.processor
def test_a_stem_trains_at_any_size() -> None:
    """Strided 1x1 convolutions of few channels end the process on some CPUs, so a process of its own runs them."""
    code = """
import keras, numpy as np
from helpers import gradients, random_images
from repvgg.blocks import RepVGGBlock
for channels, size in [(3, 96), (3, 161), (1, 224), (8, 160)]:
    block = RepVGGBlock(48, 2)
    images = keras.ops.convert_to_tensor(random_images((2, size, size, channels)))
    block(images)
    found = gradients(lambda: keras.ops.mean(block(images, training=True) ** 2), block.trainable_variables)
    assert all(np.isfinite(gradient).all() and gradient.any() for gradient in found), (channels, size)
print("done")
"""
    assert run_python(code).strip() == "done"


@pytest.mark.backends
@pytest.mark.processor
@pairwise(
    {
        "strides": (1, 2),
        "groups": (2, 4),
        "dtype": ["float32"] if BACKEND != "tensorflow" else ["float32", "float64", "mixed_bfloat16", "mixed_float16"],
    }
)
def test_gradients_of_groups(strides: int, groups: int, dtype: str) -> None:
    """A grouped block is that many narrow blocks side by side, in training too."""
    grouped = make_block("RepVGGBlock", 8, strides, groups, activation="silu", dtype=dtype)
    images = keras.ops.convert_to_tensor(random_images((2, 7, 8, 8)), dtype=grouped.compute_dtype)
    width = 8 // groups
    parts = []
    for group in range(groups):
        channels = slice(group * width, (group + 1) * width)
        part = make_block("RepVGGBlock", width, strides, channels=width, activation="silu", dtype=dtype)
        part.set_weights([array[..., channels] for array in values_of(grouped)])
        parts.append((part, images[..., channels]))

    def loss(outputs: Any) -> Any:
        # Small enough for the gradients to stay in float16's range.
        return keras.ops.sum(keras.ops.cast(outputs, grouped.variable_dtype) ** 3) / 100

    kinds = [
        lambda block: block.conv3x3.kernel,
        lambda block: block.conv1x1.kernel,
        lambda block: block.conv3x3.norm.gamma,
    ]
    found = gradients(lambda: loss(grouped(images, training=True)), [kind(grouped) for kind in kinds])
    alone = [
        gradients(lambda part=part, x=x: loss(part(x, training=True)), [kind(part) for kind in kinds])  # type: ignore[misc]
        for part, x in parts
    ]
    for whole, *slices in zip(found, *alone, strict=True):
        # A gradient through normalization is a difference of large sums, so this is more than in inference.
        tolerance = {"float64": 1e-11, "float32": 1e-4, "float16": 2e-2, "bfloat16": 2e-1}[grouped.compute_dtype]
        assert relative_error(np.concatenate(slices, axis=-1), whole) < tolerance


# What TensorFlow is given to do


def operations(block: Any, channels: int, *, training: bool) -> list[str]:
    """Kinds of the operations in the traced graph of the block and its gradient."""
    import tensorflow as tf

    @tf.function
    def step(images: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(block(images, training=training))
        return tape.gradient(loss, [variable.value for variable in block.trainable_variables])

    graph = step.get_concrete_function(tf.TensorSpec((None, None, None, channels))).graph
    kinds: list[str] = [operation.type for operation in graph.get_operations()]
    for function in graph._functions.values():
        kinds += [node.op for node in function.cached_definition.node_def]
    return kinds


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("strides", [1, 2])
def test_the_graph_is_lean(strides: int, groups: int, training: bool) -> None:
    block = make_block("RepVGGBlock", 8, strides, groups)
    kinds = operations(block, 8, training=training)
    assert kinds.count("FusedBatchNormV3") == (3 if strides == 1 else 2)
    if strides == 1:
        assert not [kind for kind in kinds if "Pad" in kind]
    # Keras's own grouped convolution would be a call into a function that XLA compiles.
    assert not [kind for kind in kinds if kind in ("PartitionedCall", "StatefulPartitionedCall", "XlaLaunch")]
    # The reciprocal square root of normalization written out.
    assert "Rsqrt" not in kinds


def test_the_deploy_form_pads_nowhere_where_the_stride_is_1() -> None:
    block = make_block("RepVGGBlock", 8)
    block.switch_to_deploy()
    kinds = operations(block, 8, training=False)
    assert not [kind for kind in kinds if "Pad" in kind]
    assert kinds.count("Conv2D") == 1


# Frozen blocks


@pytest.mark.backends
def test_a_frozen_block_uses_and_keeps_its_statistics() -> None:
    block = make_block("RepVGGBlock", 8)
    images = random_images((2, 6, 6, 8))
    expected = infer(block, images)
    block.trainable = False
    before = values_of(block)
    frozen = block(keras.ops.convert_to_tensor(images), training=True)
    assert relative_error(expected, detached(frozen)) < 1e-6
    assert_same_values(before, values_of(block))
    block.trainable = True
    block(keras.ops.convert_to_tensor(images), training=True)
    assert not np.array_equal(before[-1], values_of(block)[-1])


# In place


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
    block = make_block("RepVGGBlock", 8)
    block.switch_to_deploy()
    before = values_of(block)
    block.switch_to_deploy()
    assert_same_values(before, values_of(block))


# Configuration


@pytest.mark.backends
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strides": 2, "groups": 4, "deploy": True},
        {"dilation_rate": 2, "activation": "silu", "data_format": "channels_first"},
        {"squeeze_excite": SQUEEZE_EXCITE["after"], "dtype": "mixed_bfloat16", "momentum": 0.99, "epsilon": 1e-3},
        {"kernel_initializer": "he_normal", "kernel_regularizer": keras.regularizers.L2(1e-4), "activation": None},
    ],
)
@every_kind
def test_config_round_trip(kind: str, options: dict[str, Any]) -> None:
    block = BLOCKS[kind](8, name="some", **options)
    text = json.dumps(keras.saving.serialize_keras_object(block))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(again) is type(block)
    assert again.get_config() == block.get_config()
    for name, value in options.items():
        if name in ("strides", "groups", "dilation_rate", "deploy", "data_format", "momentum", "epsilon"):
            assert getattr(again, name) == value
    shape = (1, 8, 6, 6) if block.data_format == "channels_first" else (1, 6, 6, 8)
    again.build(shape)
    block.build(shape)
    again.set_weights(values_of(block))
    images = random_images(shape)
    np.testing.assert_array_equal(infer(block, images), infer(again, images))


@pytest.mark.parametrize("name", ["momentum", "epsilon"])
def test_torchs_constants_are_the_defaults(name: str) -> None:
    block = make_block("RepVGGBlock", 8)
    expected = {"momentum": 0.9, "epsilon": 1e-5}[name]
    assert {getattr(norm, name) for norm in norms_of(block)} == {expected}


def test_initializer_and_regularizer_reach_every_kernel() -> None:
    block = RepVGGBlock(8, kernel_initializer="ones", kernel_regularizer=keras.regularizers.L2(1.0))
    block.build((None, 8, 8, 8))
    assert float(sum(block.losses)) == pytest.approx(9 * 64 + 64)


def test_regularization_ends_with_the_training_form() -> None:
    block = RepVGGBlock(8, kernel_regularizer="l2")
    block.build((None, 8, 8, 8))
    block.switch_to_deploy()
    assert block.losses == []


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filters": 0}, "`filters` must be a whole number of at least 1. Received: 0"),
        ({"filters": 8.0}, "`filters` must be a whole number"),
        ({"filters": 8, "strides": 0}, "`strides` must be a whole number of at least 1"),
        ({"filters": 8, "strides": (2, 2)}, r"`strides` must be a whole number .* Received: \(2, 2\)"),
        ({"filters": 8, "groups": -1}, "`groups` must be a whole number of at least 1. Received: -1"),
        ({"filters": 8, "groups": 3}, r"`filters` \(=8\) must be divisible by `groups` \(=3\)"),
        ({"filters": 8, "dilation_rate": 0}, "`dilation_rate` must be a whole number"),
        ({"filters": 8, "strides": 2, "dilation_rate": 2}, r"`strides` \(=2\) and `dilation_rate` \(=2\) cannot both"),
        ({"filters": 8, "data_format": "NHWC"}, "data_format.*NHWC"),
        ({"filters": 8, "squeeze_excite": {"position": "nowhere", "reduction": 4}}, "nowhere"),
    ],
)
@every_kind
def test_arguments_that_make_no_block(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BLOCKS[kind](**options)


@every_kind
def test_inputs_that_fit_no_block(kind: str) -> None:
    with pytest.raises(InputError, match=r"'odd': input channels \(=6\) must be divisible by groups \(=4\)"):
        BLOCKS[kind](8, groups=4, name="odd").build((None, 8, 8, 6))
    with pytest.raises(InputError, match=r"'flat' needs a batch of images with 4 axes .* with 2: \(None, 8\)"):
        BLOCKS[kind](8, name="flat").build((None, 8))
    with pytest.raises(InputError, match="'vague' needs a known number of channels"):
        BLOCKS[kind](8, name="vague").build((None, 8, 8, None))


@pytest.mark.backends
@pytest.mark.parametrize("channels", [2, 8, 1])
@pytest.mark.parametrize("strides", [1, 2])
def test_other_channels_than_built_for(strides: int, channels: int) -> None:
    """TensorFlow would take 8 channels where the kernel has 4 for a convolution of 2 groups, and calculate it."""
    block = make_block("RepVGGBlock", 8, strides, channels=4, name="built")
    with pytest.raises(ValueError, match=rf"(?s)built.*4.*{channels}"):
        block(keras.ops.convert_to_tensor(random_images((1, 8, 8, channels))))
