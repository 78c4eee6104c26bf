"""Blocks while they are trained: against PyTorch, their gradients, and what TensorFlow is given to do."""

from typing import Any

import keras
import numpy as np
import pytest
from making import make_block, norms_of

from helpers import (
    BACKEND,
    assert_same_values,
    detached,
    gradients,
    infer,
    random_images,
    relative_error,
    run_python,
    to_numpy,
    values_of,
)
from repvgg.blocks import BLOCKS
from sampling import pairwise

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


@pytest.mark.processor
def test_a_stem_trains_at_any_size() -> None:
    """TensorFlow's strided 1x1 convolutions of few channels end it on some CPUs, so a process of its own runs them."""
    sizes = [(3, 96), (3, 161), (1, 224), (8, 160)]
    cases = [(*size, kind) for size in sizes for kind in BLOCKS if size == sizes[1] or kind == "RepVGGBlock"]
    code = f"""
import keras, numpy as np
from helpers import gradients, random_images
from repvgg.blocks import BLOCKS
for channels, size, kind in {cases}:
    block = BLOCKS[kind](48, 2)
    images = keras.ops.convert_to_tensor(random_images((2, size, size, channels)))
    block(images)
    found = gradients(lambda: keras.ops.mean(block(images, training=True) ** 2), block.trainable_variables)
    assert all(np.isfinite(gradient).all() for gradient in found), (kind, channels, size)
    # A kernel of one number before a normalization has no influence, so its gradient is nothing but rounding.
    kernels = [one.name == "kernel" and np.prod(one.shape[:-1]) > 1 for one in block.trainable_variables]
    assert all(gradient.any() for gradient, kernel in zip(found, kernels) if kernel), (kind, channels, size)
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
