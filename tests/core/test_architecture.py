"""From numbers to blocks: widths, places, groups, and what makes no network."""

from typing import Any

import pytest

from repvgg.base.errors import InputError
from repvgg.core.architecture import Architecture, SqueezeExcite, alternate_groups

SMALL: dict[str, Any] = {"num_blocks": (1, 2, 3, 1), "width_multiplier": (0.25, 0.25, 0.25, 0.5)}


def test_blocks_from_the_stem_on() -> None:
    blocks = Architecture(**SMALL).blocks()
    assert [block.name for block in blocks] == [
        "stage0",
        "stage1_block0",
        "stage2_block0",
        "stage2_block1",
        "stage3_block0",
        "stage3_block1",
        "stage3_block2",
        "stage4_block0",
    ]
    assert [(block.in_channels, block.filters) for block in blocks] == [
        (3, 16),
        (16, 16),
        (16, 32),
        (32, 32),
        (32, 64),
        (64, 64),
        (64, 64),
        (64, 256),
    ]
    assert [block.strides for block in blocks] == [2, 2, 2, 1, 2, 1, 1, 2]
    assert [block.shape.keeps_shape for block in blocks] == [False, False, False, True, False, True, True, False]


@pytest.mark.parametrize(("factor", "stem", "first"), [(0.75, 48, 48), (1, 64, 64), (2.5, 64, 160)])
def test_the_stem_is_never_wider_than_64(factor: float, stem: int, first: int) -> None:
    architecture = Architecture((1, 1, 1, 1), (factor, 1, 1, 1))
    assert architecture.stem_width == stem
    assert architecture.stage_widths[0] == first


@pytest.mark.parametrize("groups", [2, 4])
def test_the_papers_groups_sit_on_even_places_from_2_to_26(groups: int) -> None:
    depths = (4, 6, 16, 1)
    assert alternate_groups(groups, depths) == dict.fromkeys(range(2, 27, 2), groups)
    blocks = Architecture(depths, (2, 2, 2, 4), alternate_groups(groups, depths)).blocks()
    assert [place for place, block in enumerate(blocks) if block.groups == groups] == list(range(2, 27, 2))
    assert {block.groups for place, block in enumerate(blocks) if place % 2} == {1}


def test_alternate_groups_end_with_the_network() -> None:
    assert alternate_groups(2, (1, 2, 3, 1)) == {2: 2, 4: 2, 6: 2}
    assert max(alternate_groups(2, (8, 14, 24, 1))) == 26


@pytest.mark.parametrize(("channels", "reduction", "hidden"), [(160, 16, 10), (160, 4, 40), (8, 16, 1)])
def test_hidden_width_of_squeeze_and_excitation(channels: int, reduction: int, hidden: int) -> None:
    assert SqueezeExcite("before_activation", reduction).hidden(channels) == hidden


def test_auxiliary_heads_listen_to_the_ends_of_stages_1_2_and_of_half_of_stage_3() -> None:
    assert Architecture((8, 14, 24, 1), (1, 1, 1, 1), auxiliary_heads=True).auxiliary_taps() == {
        "stage1_aux": "stage1_block7",
        "stage2_aux": "stage2_block13",
        "stage3_first_aux": "stage3_block11",
    }
    assert Architecture((8, 14, 24, 1), (1, 1, 1, 1)).auxiliary_taps() == {}


def test_equal_and_hashable_as_data() -> None:
    first, second = Architecture(**SMALL, groups={2: 2}), Architecture(**SMALL, groups={2: 2})
    assert first == second
    assert hash(first) == hash(second)
    assert first != Architecture(**SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": (1, 2, 3)}, r"`num_blocks` needs one value for each of the 4 stages, and has 3: \(1, 2, 3\)"),
        ({"width_multiplier": (1, 1, 1, 1, 1)}, r"`width_multiplier` needs one value .* and has 5"),
        ({"num_blocks": (1, 0, 3, 1)}, r"`num_blocks` needs values above 0. Received: \(1, 0, 3, 1\)"),
        ({"width_multiplier": (1, 1, -0.5, 1)}, "`width_multiplier` needs values above 0"),
        ({"groups": {8: 2}}, r"`override_groups_map` names block 8, .* has blocks 0 \(the stem\) to 7"),
        ({"groups": {-1: 2}}, "`override_groups_map` names block -1"),
        ({"groups": {2: 0}}, "`override_groups_map` gives block 2 0 groups; at least 1 is needed"),
    ],
)
def test_numbers_that_make_no_network(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Architecture(**{**SMALL, **changes})


@pytest.mark.parametrize("width", [0.01, 1 / 65])
def test_a_width_that_leaves_no_channel(width: float) -> None:
    with pytest.raises(InputError, match="width_multiplier"):
        Architecture((1, 1, 1, 1), (width, 1, 1, 1)).blocks()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({0: 2}, r"Block 0 \(stage0\) has 3 input channels, which 2 groups do not divide"),
        ({2: 3}, r"Block 2 \(stage2_block0\) has 16 input channels, which 3 groups do not divide"),
        ({4: 64}, r"Block 4 \(stage3_block0\) has 32 input channels, which 64 groups do not divide"),
    ],
)
def test_groups_that_do_not_divide(groups: dict[int, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Architecture(**SMALL, groups=groups).blocks()


def test_auxiliary_heads_need_two_halves_of_stage_3() -> None:
    with pytest.raises(InputError, match=r"stage 3 .* needs at least 2 blocks. Received num_blocks=\(1, 1, 1, 1\)"):
        Architecture((1, 1, 1, 1), (1, 1, 1, 1), auxiliary_heads=True).auxiliary_taps()
