"""The architecture from names and shapes: named networks, odd ones, and what makes no network."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from repvgg.base.errors import CheckpointError
from repvgg.base.metadata import Form
from repvgg.checkpoints.canonical import canonical_shapes
from repvgg.checkpoints.checkpoint import read_checkpoint
from repvgg.checkpoints.describe import describe_checkpoint
from repvgg.checkpoints.dialects import DIALECTS
from repvgg.checkpoints.infer import infer, named_variant
from repvgg.checkpoints.torch_format.writer import write_torch
from repvgg.core.architecture import Architecture, SqueezeExcite
from repvgg.models.variants import VARIANTS, Variant, as_deployed

REFERENCE = Path(__file__).parents[1] / "golden" / "reference"
FORMS: tuple[Form, ...] = ("training", "deploy")
every_form = pytest.mark.parametrize("form", FORMS)
TINY = Architecture((1, 2, 2, 1), (0.125, 0.125, 0.0625, 0.03125))


@pytest.mark.parametrize("variant", list(VARIANTS.values()), ids=list(VARIANTS))
@every_form
def test_named_networks(variant: Variant, form: Form) -> None:
    shapes = canonical_shapes(variant.architecture, form)
    found = infer(shapes)
    if form == "deploy":
        # What it was trained as does not show.
        shown = as_deployed(variant.architecture)
        variant = next(row for row in VARIANTS.values() if as_deployed(row.architecture) == shown)
    assert found.architecture == replace(
        variant.architecture, auxiliary_heads=variant.architecture.auxiliary_heads and form == "training"
    )
    assert (found.form, found.in_channels, found.num_classes, found.variant) == (form, 3, 1000, variant)
    assert found.shapes() == shapes


@pytest.mark.parametrize("variant", list(VARIANTS.values()), ids=list(VARIANTS))
def test_the_table_of_shapes_has_the_published_parameters(variant: Variant) -> None:
    for form in FORMS:
        shapes = canonical_shapes(variant.architecture, form)
        learned = sum(int(np.prod(shape)) for name, shape in shapes.items() if "running" not in name)
        cost = variant.cost()
        assert learned == (cost.train_parameters if form == "training" else cost.deploy_parameters)


@every_form
@pytest.mark.parametrize(
    "architecture",
    [
        Architecture((1, 1, 1, 1), (1 / 64, 1 / 128, 1 / 256, 1 / 512)),
        Architecture((3, 1, 5, 2), (33 / 64, 77 / 128, 1.5, 13 / 512)),
        Architecture((1, 2, 2, 1), (1, 1, 1, 1), {1: 64, 3: 32, 4: 2, 6: 256}),
        Architecture((1, 1, 1, 1), (1, 2, 3, 4), squeeze_excite=SqueezeExcite("before_activation", 16)),
        Architecture((1, 1, 1, 1), (1, 2, 3, 4), squeeze_excite=SqueezeExcite("after_activation", 4)),
        Architecture((1, 1, 1, 1), (1, 2, 3, 4), squeeze_excite=SqueezeExcite("after_activation", 64)),
        Architecture((1, 1, 1, 1), (99 / 64, 0.3046875, 1, 1), squeeze_excite=SqueezeExcite("after_activation", 7)),
    ],
    ids=str,
)
def test_networks_of_any_depth_and_width(architecture: Architecture, form: Form) -> None:
    shapes = canonical_shapes(architecture, form, in_channels=5, num_classes=7)
    found = infer(shapes)
    assert found.shapes() == shapes
    assert (found.in_channels, found.num_classes, found.form) == (5, 7, form)
    assert found.architecture.groups == architecture.groups
    assert found.architecture.stage_widths == architecture.stage_widths
    assert named_variant(found.architecture) is None


def test_a_network_without_classifier() -> None:
    shapes = canonical_shapes(TINY, "training", num_classes=None)
    found = infer(shapes)
    assert found.num_classes is None
    assert found.shapes() == shapes


def _file(path: Path, changes: dict[str, tuple[int, ...] | None], dialect: str = "official") -> Path:
    shapes: dict[str, tuple[int, ...] | None] = {**canonical_shapes(TINY, "training", num_classes=2)}
    spelled = DIALECTS[dialect].from_canonical(shapes)
    shapes = {spelled[name]: shape for name, shape in shapes.items()} | changes
    write_torch({name: np.ones(shape, np.float32) for name, shape in shapes.items() if shape is not None}, path)
    return path


def test_everything_that_is_wrong_is_listed_in_the_files_own_names(tmp_path: Path) -> None:
    path = _file(
        tmp_path / "file.pth",
        {
            "extra": (1,),
            "stages.1.0.identity.weight": (16,),
            "stages.2.1.identity.running_mean": None,
            "stages.2.0.conv_kxk.conv.weight": None,
            "head.fc.bias": (3,),
        },
        "timm",
    )
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "has no place for: extra, stages.1.0.identity.weight;" in message
    assert "it lacks: stages.2.0.conv_kxk.conv.weight, stages.2.1.identity.running_mean;" in message
    assert "wrong shape: head.fc.bias (3,) instead of (2,)." in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"stage4.0.{name}": None for name in ("rbr_dense.conv.weight",)}, r"no 'stage4\.0\.rbr_dense\.conv\.weight'"),
        ({"stage0.rbr_dense.conv.weight": (8,)}, r"has the shape \(8,\); a convolution's kernel has 4 axes"),
        ({"stage0.rbr_dense.conv.weight": (9, 3, 3, 3)}, r"rbr_dense\.conv\.weight \(9, 3, 3, 3\) instead of \(8, 3"),
        ({"stage2.1.rbr_reparam.weight": (16, 16, 3, 3)}, r"no place for: stage2\.1\.rbr_reparam\.weight"),
        ({"stage2.7.rbr_identity.weight": (16,)}, r"no place for: stage2\.7\.rbr_identity\.weight; .*lacks: stage2\.2"),
        ({"stage0.se.down.weight": (1, 8)}, r"'stage0\.se\.down\.weight' has the shape \(1, 8\); 4 axes"),
        ({"stage1_aux.3.bias": (2,)}, r"no place for: stage1_aux\.3\.bias"),
        ({"stage2.1.rbr_dense.conv.weight": (16, 5, 3, 3)}, r"\(16, 5, 3, 3\) instead of \(16, 16, 3, 3\)"),
        ({"linear.weight": None}, r"no place for: linear\.bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_shapes_that_make_no_network(tmp_path: Path, changes: dict[str, tuple[int, ...] | None], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(_file(tmp_path / "file.pth", changes))


def test_a_third_stage_that_is_not_cut_in_the_middle(tmp_path: Path) -> None:
    # The auxiliary classifier sits at the cut; elsewhere it would listen to another block.
    shapes = canonical_shapes(Architecture((1, 1, 4, 1), (0.25,) * 4, auxiliary_heads=True), "training")
    spelled = DIALECTS["plus"].from_canonical(shapes)
    moved = {
        name: spelled[name]
        .replace("stage3_second.blocks.0", "stage3_first.blocks.2")
        .replace("second.blocks.1", "second.blocks.0")
        for name in shapes
    }
    write_torch({moved[name]: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "file.pth")
    with pytest.raises(
        CheckpointError, match=r"no place for: stage3_first\.blocks\.2.*lacks: stage3_second\.blocks\.1"
    ):
        read_checkpoint(tmp_path / "file.pth")


def test_a_stage_that_is_missing(tmp_path: Path) -> None:
    shapes = {name: shape for name, shape in canonical_shapes(TINY, "deploy").items() if not name.startswith("stage3")}
    write_torch({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="no blocks of stage 3"):
        read_checkpoint(tmp_path / "file.pth")


def test_quantized_weights_are_turned_down(tmp_path: Path) -> None:
    tensors = {name: np.ones(shape, np.int8) for name, shape in canonical_shapes(TINY, "deploy").items()}
    write_torch(tensors, tmp_path / "file.pth")
    with pytest.raises(
        CheckpointError, match=r"float16, bfloat16, and these are not: stage0\.rbr_reparam\.weight \(int8"
    ):
        read_checkpoint(tmp_path / "file.pth")


def test_description_of_a_wrapped_file() -> None:
    path = REFERENCE / "official_train_ddp.pth"
    found = describe_checkpoint(path)
    assert found.architecture == Architecture((2, 2, 3, 1), (0.25,) * 4)
    assert (found.container, found.dialect, found.form, found.variant) == ("torch-zip", "official", "training", None)
    assert (found.in_channels, found.num_classes, found.dtypes) == (3, 10, ("float32",))
    assert (found.wrapper, found.prefix, found.beside) == (("model",), "module.", ("epoch", "max_accuracy"))
    assert found.file_bytes == path.stat().st_size
    assert found.parameters == 208_650


def test_describing_needs_no_framework() -> None:
    code = (
        "import sys; from repvgg.checkpoints import describe_checkpoint; "
        f"describe_checkpoint({str(REFERENCE / 'timm_train.safetensors')!r}); "
        "print([name for name in ('keras', 'tensorflow', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_timm_groups_every_second_block_of_a_stage() -> None:
    # The others count through all stages; the same networks come out wherever all depths before the last are even.
    assert describe_checkpoint(REFERENCE / "timm_train_g4.pth").architecture.groups == {2: 4, 4: 4, 6: 4}
    assert describe_checkpoint(REFERENCE / "official_train_g4.pth").architecture.groups == {2: 4, 4: 4, 6: 4, 8: 4}
