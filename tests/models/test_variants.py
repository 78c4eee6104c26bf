"""The table of networks against the published figures, and against what Keras counts in the built networks."""

from dataclasses import FrozenInstanceError
from typing import NamedTuple

import keras
import numpy as np
import pytest

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.checkpoints.zoo import create_model
from repvgg.core.architecture import Architecture
from repvgg.models.variants import VARIANTS, find_variant, get_variant, list_variants
from sampling import sampled


class Row(NamedTuple):
    """One line of the paper's tables 4 and 5 and of the official repository's, with parameters counted to the unit."""

    name: str
    deploy_parameters: int
    train_parameters: int
    gmacs: str
    winograd: str
    speed: int | None
    top1: float | None


PUBLISHED = (
    Row("RepVGG-A0", 8_309_384, 9_108_968, "1.3615", "0.747", 3256, 72.41),
    Row("RepVGG-A1", 12_789_864, 14_092_264, "2.3640", "1.272", 2339, 74.46),
    Row("RepVGG-A2", 25_499_944, 28_210_600, "5.1170", "2.660", 1322, 76.48),
    Row("RepVGG-B0", 14_339_048, 15_817_960, "3.0576", "1.580", 1817, 75.14),
    Row("RepVGG-B1", 51_829_480, 57_415_016, "11.8155", "5.907", 685, 78.37),
    Row("RepVGG-B1g2", 41_360_104, 45_782_376, "8.8097", "4.571", 792, 77.78),
    Row("RepVGG-B1g4", 36_125_416, 39_966_056, "7.3069", "3.903", 868, 77.58),
    Row("RepVGG-B2", 80_315_112, 89_022_376, "18.3766", "9.144", 460, 78.78),
    Row("RepVGG-B2g2", 63_956_712, 70_846_376, "13.6801", "7.057", None, None),
    Row("RepVGG-B2g4", 55_777_512, 61_758_376, "11.3319", "6.013", 581, 79.38),
    Row("RepVGG-B3", 110_960_872, 123_085_288, "26.2089", "12.914", 363, 80.52),
    Row("RepVGG-B3g2", 87_404_776, 96_911_848, "19.4460", "9.909", None, None),
    Row("RepVGG-B3g4", 75_626_728, 83_825_128, "16.0645", "8.406", 464, 80.21),
    Row("RepVGG-D2se", 120_387_572, 133_334_836, "66.994", "31.77", None, 83.55),
    Row("RepVGGplus-L2pse", 127_151_960, 146_062_864, "67.001", "31.78", None, 84.06),
)
every_row = pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row.name)


def _in_units_of(figure: str, count: float) -> str:
    """`count` in thousands of millions, to as many digits as `figure` is printed with."""
    digits = len(figure.partition(".")[2])
    return f"{count / 1e9:.{digits}f}"


def test_the_table_is_complete_and_in_order() -> None:
    names = list_variants()
    assert names[: len(PUBLISHED)] == [row.name for row in PUBLISHED]
    # Those come last: networks of other blocks.
    assert all(get_variant(name).architecture.block != "RepVGGBlock" for name in names[len(PUBLISHED) :])


@every_row
def test_parameters_to_the_unit(row: Row) -> None:
    cost = get_variant(row.name).cost()
    assert (cost.deploy_parameters, cost.train_parameters) == (row.deploy_parameters, row.train_parameters)


@every_row
def test_multiplications_to_the_printed_digits(row: Row) -> None:
    cost = get_variant(row.name).cost()
    assert _in_units_of(row.gmacs, cost.deploy_macs) == row.gmacs
    assert _in_units_of(row.winograd, cost.winograd_multiplications) == row.winograd


@every_row
def test_published_results_and_their_source(row: Row) -> None:
    published = get_variant(row.name).published
    assert (published.examples_per_second, published.top1) == (row.speed, row.top1)
    assert "arXiv 2101.03697" in published.source or published.source.startswith("https://github.com/DingXiaoH/")
    assert (published.epochs is None) == (published.top1 is None)


@every_row
def test_an_architecture_knows_its_name(row: Row) -> None:
    architecture = get_variant(row.name).architecture
    same = Architecture(
        architecture.num_blocks,
        architecture.width_multiplier,
        dict(architecture.groups),
        architecture.squeeze_excite,
        architecture.auxiliary_heads,
    )
    found = find_variant(same)
    assert found is not None
    assert found.name == row.name


def test_an_architecture_of_ones_own_has_no_name() -> None:
    assert find_variant(Architecture((1, 1, 1, 1), (1, 1, 1, 1))) is None


def test_image_sizes_of_the_published_figures() -> None:
    assert {name for name, variant in VARIANTS.items() if variant.image_size != 224} == {
        "RepVGG-D2se",
        "RepVGGplus-L2pse",
    }
    assert VARIANTS["RepVGG-D2se"].image_size == 320


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("repvgg-a9", "RepVGG-A0"),
        ("RepVGG-B2g3", "RepVGG-B2g"),
        ("A0", "RepVGG-A0"),
        ("repvgg_d2se", "RepVGG-D2se"),
        ("RepVGGplus", "RepVGGplus-L2pse"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=f"There is no variant called '{name}'.*{near}"):
        get_variant(name)
    with pytest.raises(InputError, match=near):
        create_model(name)


def test_a_name_that_resembles_nothing_is_answered_with_all() -> None:
    with pytest.raises(UnknownNameError, match=r"Known: RepVGG-A0, .*, RepVGGplus-L2pse"):
        get_variant("xyz")


def test_variants_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        get_variant("RepVGG-A0").name = "RepVGG-Z"  # type: ignore[misc]
    with pytest.raises(TypeError):
        get_variant("RepVGG-B1g2").architecture.groups[2] = 8  # type: ignore[index]


@pytest.mark.parametrize("name", sampled([row.name for row in PUBLISHED], ["RepVGG-A0", "RepVGG-B1g4"]))
def test_built_networks_have_the_counted_parameters(name: str) -> None:
    row = next(row for row in PUBLISHED if row.name == name)
    training = create_model(name)
    assert sum(int(np.prod(variable.shape)) for variable in training.trainable_variables) == row.train_parameters
    deploy = create_model(name, deploy=True)
    assert deploy.count_params() == row.deploy_parameters


@pytest.mark.parametrize(("name", "side"), [("RepVGG-A0", 224), ("RepVGG-A0", 75), ("RepVGG-B1g4", 224)])
def test_multiplications_agree_with_the_built_network(name: str, side: int) -> None:
    """Counted again from the layers that Keras made: shapes of kernels times pixels of outputs."""
    model = create_model(name, num_classes=10, input_shape=(side, side, 3), deploy=True)
    macs = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            macs += int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:3]))
        elif isinstance(layer, keras.layers.Dense):
            macs += int(np.prod(layer.kernel.shape))
    assert get_variant(name).cost(num_classes=10, image_size=side).deploy_macs == macs


@pytest.mark.parametrize("name", ["repvgg-a0", "REPVGG-B2G4", "repvggPLUS-l2pse"])
def test_capitals_do_not_matter(name: str) -> None:
    assert get_variant(name).name.casefold() == name.casefold()
