"""Counting, by hand and by measurement. The published totals are in test_variants.py."""

import numpy as np
import pytest

from helpers import random_images
from repvgg.core.architecture import Architecture, SqueezeExcite
from repvgg.models.cost import count_cost

TINY = Architecture((1, 2, 2, 1), (0.125, 0.125, 0.125, 0.125))
"""Widths 8, 8, 16, 32, 64."""


def test_a_block_by_hand() -> None:
    stem, first, _, second = count_cost(TINY, None, (33, 20)).blocks[:4]
    assert stem.output_size == (17, 10)
    assert stem.train_parameters == 9 * 3 * 8 + 3 * 8 + 2 * 2 * 8
    assert stem.deploy_parameters == 9 * 3 * 8 + 8
    assert stem.deploy_macs == 9 * 3 * 8 * 17 * 10
    assert stem.train_macs == 10 * 3 * 8 * 17 * 10
    assert stem.winograd_multiplications == stem.deploy_macs
    assert first.output_size == (9, 5)
    assert second.spec.name == "stage2_block1"
    assert second.train_parameters == 10 * 16 * 16 + 3 * 2 * 16
    assert second.winograd_multiplications == pytest.approx(second.deploy_macs * 16 / 36)


def test_groups_divide_the_work() -> None:
    dense, grouped = (
        count_cost(TINY, None, (32, 32)),
        count_cost(Architecture(TINY.num_blocks, TINY.width_multiplier, {3: 4}), None, (32, 32)),
    )
    assert 4 * grouped.blocks[3].deploy_macs == dense.blocks[3].deploy_macs
    assert grouped.blocks[2] == dense.blocks[2]


def test_squeeze_and_excitation_counts_once_an_image() -> None:
    settings = SqueezeExcite("before_activation", 4)
    plain = count_cost(TINY, None, (64, 64)).blocks[1]
    block = count_cost(Architecture(TINY.num_blocks, TINY.width_multiplier, {}, settings), None, (64, 64)).blocks[1]
    assert block.deploy_macs - plain.deploy_macs == 2 * 8 * 2
    assert block.deploy_parameters - plain.deploy_parameters == 2 * 8 * 2 + 2 + 8


def test_the_classifier() -> None:
    features, classifier = count_cost(TINY, None, (32, 32)), count_cost(TINY, 10, (32, 32))
    assert classifier.deploy_macs - features.deploy_macs == 64 * 10
    assert classifier.deploy_parameters - features.deploy_parameters == 64 * 10 + 10


def test_auxiliary_heads_cost_while_training_only() -> None:
    plain = count_cost(TINY, 10, (64, 64))
    helped = count_cost(Architecture(TINY.num_blocks, TINY.width_multiplier, auxiliary_heads=True), 10, (64, 64))
    assert (helped.deploy_parameters, helped.deploy_macs) == (plain.deploy_parameters, plain.deploy_macs)
    heads = sum(9 * width**2 + 2 * width + 10 * width + 10 for width in (8, 16, 32))
    assert helped.train_parameters - plain.train_parameters == heads
    # Stage 1 ends at 16 x 16 pixels for an image of 64, stage 2 at 8 x 8, stage 3 at 4 x 4; the heads halve that.
    work = sum(9 * width**2 * side**2 + 10 * width for width, side in ((8, 8), (16, 4), (32, 2)))
    assert helped.train_macs - plain.train_macs == work


def test_grey_images() -> None:
    assert count_cost(TINY, None, (32, 32), in_channels=1).blocks[0].deploy_parameters == 9 * 8 + 8


def test_receptive_field_by_hand() -> None:
    fields = [block.receptive_field for block in count_cost(TINY, None, (64, 64)).blocks]
    assert fields == [3, 7, 15, 31, 47, 79, 111]


def test_receptive_field_as_measured() -> None:
    """The pixels that one value of the last feature map depends on, found by its gradient."""
    import tensorflow as tf

    from repvgg.models.model import build_network

    network = build_network(TINY, None, (256, 256, 3), deploy=True, dtype="float64")
    for variable in network.weights:
        # Nothing cancels and nothing dies where all weights are positive.
        variable.assign(np.full(variable.shape, 0.1))
    images = tf.constant(np.abs(random_images((1, 256, 256, 3), dtype="float64")))
    with tf.GradientTape() as tape:
        tape.watch(images)
        value = tf.reduce_sum(network(images)["stage4"][0, 4, 4])
    rows = np.flatnonzero(np.abs(tape.gradient(value, images)).sum(axis=(0, 2, 3)))
    assert len(rows) == rows[-1] - rows[0] + 1 == count_cost(TINY, None, (256, 256)).receptive_field
