"""The tables of names: each dialect against names written out here, and every network there and back."""

import pytest

from repvgg.base.errors import CheckpointError, InputError, UnknownNameError
from repvgg.base.metadata import Form
from repvgg.checkpoints.canonical import canonical_shapes
from repvgg.checkpoints.dialects import DIALECTS, detect_dialect, dialect_to_write
from repvgg.core.architecture import Architecture, SqueezeExcite
from repvgg.models.variants import VARIANTS, Variant

SPELLINGS = (
    # official, timm, mmpretrain
    ("stage0.rbr_dense.conv.weight", "stem.conv_kxk.conv.weight", "backbone.stem.branch_3x3.conv.weight"),
    ("stage0.rbr_1x1.bn.running_var", "stem.conv_1x1.bn.running_var", "backbone.stem.branch_1x1.norm.running_var"),
    ("stage1.0.rbr_reparam.bias", "stages.0.0.reparam_conv.bias", "backbone.stage_1.0.branch_reparam.bias"),
    ("stage3.12.rbr_identity.weight", "stages.2.12.identity.weight", "backbone.stage_3.12.branch_norm.weight"),
    ("stage2.1.se.down.weight", "stages.1.1.attn.fc1.weight", "backbone.stage_2.1.se_layer.conv1.conv.weight"),
    ("stage4.0.se.up.bias", "stages.3.0.attn.fc2.bias", "backbone.stage_4.0.se_layer.conv2.conv.bias"),
    (
        "stage1.1.rbr_dense.bn.num_batches_tracked",
        "stages.0.1.conv_kxk.bn.num_batches_tracked",
        "backbone.stage_1.1.branch_3x3.norm.num_batches_tracked",
    ),
    ("linear.weight", "head.fc.weight", "head.fc.weight"),
)
FORMS: tuple[Form, ...] = ("training", "deploy")
every_variant = pytest.mark.parametrize("variant", list(VARIANTS.values()), ids=list(VARIANTS))
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.mark.parametrize(("column", "dialect"), list(enumerate(("official", "timm", "mmpretrain"))))
def test_spellings(column: int, dialect: str) -> None:
    canonical = [row[0] for row in SPELLINGS]
    spelled = [row[column] for row in SPELLINGS]
    assert DIALECTS[dialect].from_canonical(canonical) == dict(zip(canonical, spelled, strict=True))
    assert DIALECTS[dialect].to_canonical(spelled) == dict(zip(spelled, canonical, strict=True))


def test_repvggplus_counts_its_third_stage_in_two_halves() -> None:
    canonical = [f"stage3.{index}.post_se.up.bias" for index in range(24)]
    spelled = DIALECTS["plus"].from_canonical(canonical)
    assert spelled["stage3.0.post_se.up.bias"] == "stage3_first.blocks.0.post_se.up.bias"
    assert spelled["stage3.11.post_se.up.bias"] == "stage3_first.blocks.11.post_se.up.bias"
    assert spelled["stage3.12.post_se.up.bias"] == "stage3_second.blocks.0.post_se.up.bias"
    assert spelled["stage3.23.post_se.up.bias"] == "stage3_second.blocks.11.post_se.up.bias"
    back = DIALECTS["plus"].to_canonical(list(spelled.values()))
    assert back == {theirs: ours for ours, theirs in spelled.items()}
    heads = ["stage1_aux.0.conv.weight", "stage3_first_aux.0.bn.running_mean", "stage2_aux.3.bias"]
    assert DIALECTS["plus"].from_canonical(heads) == {name: name for name in heads}


@every_variant
@every_form
@pytest.mark.parametrize("dialect", list(DIALECTS))
def test_every_network_there_and_back(variant: Variant, form: Form, dialect: str) -> None:
    names = list(canonical_shapes(variant.architecture, form))
    target = DIALECTS[dialect]
    if variant.architecture.block not in target.blocks and form == "training":
        with pytest.raises(InputError, match="cannot express"):
            target.from_canonical(names)
        return
    is_plus = variant.name == "RepVGGplus-L2pse"
    without_attention = variant.architecture.squeeze_excite and "se.down" not in target.parts and dialect != "plus"
    if without_attention or (is_plus != (dialect == "plus") and (is_plus or variant.architecture.squeeze_excite)):
        with pytest.raises(InputError, match="cannot express"):
            target.from_canonical(names)
        return
    spelled = target.from_canonical(names)
    assert list(spelled) == names
    assert len(set(spelled.values())) == len(names)
    assert target.to_canonical(list(spelled.values())) == {theirs: ours for ours, theirs in spelled.items()}
    if dialect == dialect_to_write(dialect, variant.architecture).name:
        found = detect_dialect(list(spelled.values()))
        # One library may have several dialects whose deploy forms have the same names.
        assert found.to_canonical(list(spelled.values())) == target.to_canonical(list(spelled.values()))
        assert found is target or (form == "deploy" and found.name == target.family)


@pytest.mark.parametrize("dialect", list(DIALECTS))
@every_form
def test_names_alone_tell_the_dialect(dialect: str, form: Form) -> None:
    target = DIALECTS[dialect]
    canonical = list(canonical_shapes(Architecture((1, 1, 2, 1), (0.25,) * 4, block=target.blocks[0]), form))
    found = detect_dialect(list(target.from_canonical(canonical).values()))
    assert found is target or (form == "deploy" and found.name == target.family)


@pytest.mark.parametrize(
    "name",
    [
        "stage5.0.rbr_reparam.bias",
        "stage1.x.rbr_reparam.bias",
        "stage1.0.rbr_3x3.bias",
        "xstage0.rbr_reparam.bias",
        "stage1.12345.rbr_reparam.bias",
        "stage0.rbr_reparam",
        "stage0.0.rbr_reparam.bias",
        "linear.weight.x",
        "stage1.0.rbr_reparam.bias\n",
    ],
)
def test_near_misses_are_no_names(name: str) -> None:
    assert all(not dialect.to_canonical([name]) for dialect in DIALECTS.values())


def test_other_networks_are_turned_down() -> None:
    with pytest.raises(CheckpointError, match=r"begins with 'conv1\.weight', 'head\.fc\.weight'"):
        detect_dialect(["conv1.weight", "head.fc.weight"])


def test_official_has_two_spellings() -> None:
    early = SqueezeExcite("before_activation", 16)
    late = SqueezeExcite("after_activation", 4)
    depths, widths = (1, 1, 2, 1), (1.0,) * 4
    assert dialect_to_write("official", Architecture(depths, widths)).name == "official"
    assert dialect_to_write("official", Architecture(depths, widths, squeeze_excite=early)).name == "official"
    assert dialect_to_write("official", Architecture(depths, widths, squeeze_excite=late)).name == "plus"
    assert dialect_to_write("official", Architecture(depths, widths, auxiliary_heads=True)).name == "plus"
    with pytest.raises(UnknownNameError, match=r"no checkpoint dialect called 'tim'\. Did you mean timm"):
        dialect_to_write("tim", Architecture(depths, widths))


def test_what_a_dialect_has_no_names_for() -> None:
    late = Architecture((1, 1, 2, 1), (0.25,) * 4, squeeze_excite=SqueezeExcite("after_activation", 4))
    with pytest.raises(
        InputError, match=r"attention after the activation: stage0\.post_se\.down\.weight, .*'official'"
    ):
        DIALECTS["timm"].from_canonical(list(canonical_shapes(late, "deploy")))
    heads = Architecture((1, 1, 2, 1), (0.25,) * 4, auxiliary_heads=True)
    with pytest.raises(InputError, match=r"auxiliary classifiers: stage1_aux\.0\.conv\.weight, "):
        DIALECTS["mmpretrain"].from_canonical(list(canonical_shapes(heads, "training")))
