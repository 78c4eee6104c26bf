"""Every kind of block in both forms, against NumPy."""

from typing import Any

import keras
import numpy as np
import pytest
from making import make_block

from helpers import (
    BACKEND,
    SQUEEZE_EXCITE,
    Array,
    convolve,
    detached,
    gradients,
    infer,
    normalize,
    random_images,
    relative_error,
    to_numpy,
    values_of,
)
from repvgg.base.errors import ConversionError
from repvgg.blocks import BLOCKS, SinglePath
from repvgg.blocks.kind import AveragePool, Branch, Conv, Norm, Scale
from sampling import pairwise

pytestmark = pytest.mark.processor

TOLERANCES = {"float32": 1e-5, "float64": 1e-12}
"""Relative errors: some hundred roundings of each dtype, for sums of at most 25 * 8 products in another order."""

DTYPES = ["float32", "float64"] if BACKEND == "tensorflow" else ["float32"]
"""JAX calculates in float64 only if it is told so before it starts; Keras on torch takes means in float32 even then."""

every_kind = pytest.mark.parametrize("kind", BLOCKS)


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


def numpy_block(block: Any, images: Array) -> Array:
    """The sum of the branches that the kind lists, each step after step on padded images, in float64."""
    images = images.astype("float64")
    total = sum(numpy_branch(block, branch, images) for branch in block.kind.branches(block.shape))
    return numpy_activation(block, total if block.norm is None else numpy_norm(block.norm, total))


def numpy_branch(block: Any, branch: Branch, images: Array) -> Array:
    dilation = block.dilation_rate
    pads = [(dilation * (side // 2),) * 2 for side in branch.kernel_size]
    images = np.pad(images, ((0, 0), *pads, (0, 0)))
    layer = getattr(block, branch.name, None)
    last = [step for step in branch.steps if isinstance(step, Conv | AveragePool)][-1:]
    for path, step in branch.step_paths():
        own = block.variable(f"{branch.name}.{path}".removesuffix(".")) if isinstance(step, Norm) else layer
        strides = block.strides if [step] == last else 1
        if isinstance(step, Norm):
            images = numpy_norm(own, images)
        elif isinstance(step, Scale):
            images = images * to_numpy(block.variable(f"{branch.name}.{path}scale")).astype("float64")
        elif isinstance(step, Conv):
            kernel = to_numpy(block.variable(f"{branch.name}.{path}kernel")).astype("float64")
            if step.identity_based:
                width = kernel.shape[2]
                for channel in range(kernel.shape[3]):
                    kernel[0, 0, channel % width, channel] += 1
            images = convolve(images, kernel, strides, block.groups, dilation, padded=False)
        else:
            kernel = np.full((*step.kernel_size, 1, images.shape[-1]), 1 / np.prod(step.kernel_size))
            images = convolve(images, kernel, strides, images.shape[-1], dilation, padded=False)
    return images


def numpy_repvgg_block(block: Any, images: Array) -> Array:
    """The block of the paper, written once more by hand."""
    images = images.astype("float64")
    dense, point = (to_numpy(branch.kernel).astype("float64") for branch in (block.conv3x3, block.conv1x1))
    outputs = numpy_norm(
        block.conv3x3.norm, convolve(images, dense, block.strides, block.groups, block.dilation_rate)
    ) + numpy_norm(block.conv1x1.norm, convolve(images, point, block.strides, block.groups))
    if block.identity is not None:
        outputs = outputs + numpy_norm(block.identity, images)
    return numpy_activation(block, outputs)


SHAPES = {
    "with identity": (1, 8),
    "widening": (1, 4),
    "halving": (2, 8),
    "halving and widening": (2, 4),
    "a third": (3, 8),
}
"""Strides, and channels of the input; 8 come out."""

KERNEL_SIZES = (3, 1, 5, (3, 5))


@pytest.mark.backends
@pairwise(
    {
        "kind": BLOCKS,
        "kernel_size": KERNEL_SIZES,
        "shape": SHAPES,
        "groups": (1, 2, 4),
        "attention": SQUEEZE_EXCITE,
        "dtype": DTYPES,
    },
    # Attention sees nothing but the sum, so what went into it need not be varied once more.
    where=lambda shape, groups, attention, **_: attention == "none" or (shape != "a third" and groups < 4),
)
def test_both_forms_give_the_same(
    kind: str, kernel_size: Any, shape: str, groups: int, attention: str, dtype: str
) -> None:
    strides, channels = SHAPES[shape]
    settings = {"kernel_size": kernel_size, "squeeze_excite": SQUEEZE_EXCITE[attention]}
    settings["copies"] = 1 + BLOCKS[kind].kind.has_copies
    block = make_block(kind, 8, strides, groups, channels=channels, dtype=dtype, **settings)
    even, odd = (random_images((2, size, size + 2, channels), dtype=dtype) for size in (8, 9))
    expected = [infer(block, images) for images in (even, odd)]
    for images, outputs in zip((even, odd), expected, strict=True):
        assert outputs.shape == (2, -(-images.shape[1] // strides), -(-images.shape[2] // strides), 8)
        assert outputs.dtype == dtype
        assert relative_error(numpy_block(block, images), outputs) < TOLERANCES[dtype]
        if kind == "RepVGGBlock":
            assert relative_error(numpy_repvgg_block(block, images), outputs) < TOLERANCES[dtype]

    stock = SinglePath.of_block(block)
    stock(keras.ops.convert_to_tensor(even))
    stock.copy_weights(block)
    assert all(type(layer).__module__.startswith("keras.") for layer in stock.layers.values())
    block.switch_to_deploy()
    for images, outputs in zip((even, odd), expected, strict=True):
        assert relative_error(outputs, detached(stock(keras.ops.convert_to_tensor(images)))) < TOLERANCES[dtype]
        assert relative_error(outputs, infer(block, images)) < TOLERANCES[dtype]


@pytest.mark.backends
@pairwise(
    {
        "kind": BLOCKS,
        "dilation_rate": (2, 3),
        "groups": (1, 2),
        "dtype": DTYPES,
    }
)
def test_dilation(kind: str, dilation_rate: int, groups: int, dtype: str) -> None:
    block = make_block(kind, 8, groups=groups, dilation_rate=dilation_rate, dtype=dtype)
    images = random_images((2, 11, 10, 8), dtype=dtype)
    expected = infer(block, images)
    assert relative_error(numpy_block(block, images), expected) < TOLERANCES[dtype]
    stock = SinglePath.of_block(block)
    stock(keras.ops.convert_to_tensor(images))
    stock.copy_weights(block)
    assert relative_error(expected, detached(stock(keras.ops.convert_to_tensor(images)))) < TOLERANCES[dtype]


@pytest.mark.backends
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


@pytest.mark.backends
@every_kind
@pytest.mark.parametrize("strides", [1, 2])
def test_depthwise(kind: str, strides: int) -> None:
    block = make_block(kind, 8, strides, 8)
    images = random_images((2, 9, 8, 8))
    expected = infer(block, images)
    assert relative_error(numpy_block(block, images), expected) < 1e-5
    block.switch_to_deploy()
    assert relative_error(expected, infer(block, images)) < 1e-5


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
