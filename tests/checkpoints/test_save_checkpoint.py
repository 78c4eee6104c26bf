"""From models to files and back: every weight bit for bit, and torch's own strict loading."""

import collections
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from networks import NETWORKS, network

from helpers import Array, assert_same_values, infer, random_images, relative_error, trained_like, values_of
from repvgg.base.errors import InputError, OutputExistsError, UnknownNameError
from repvgg.blocks import BatchNorm
from repvgg.checkpoints import load_checkpoint, save_checkpoint
from repvgg.checkpoints.canonical import canonical_shapes
from repvgg.checkpoints.dialects import dialect_to_write
from repvgg.checkpoints.saving import state_dict
from repvgg.checkpoints.tensor_files import read_tensors
from repvgg.checkpoints.zoo import create_model
from repvgg.conversion import reparameterize, switch_to_deploy
from repvgg.core.architecture import Architecture
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata
from repvgg.models.variants import VARIANTS
from sampling import first_of_each, kind_of_variant, pairwise, sampled

DIALECTS = ("official", "timm", "mmpretrain")
FORMS = ("training", "deploy")
REPVGGS = {name: row for name, row in VARIANTS.items() if row.architecture.block == "RepVGGBlock"}
REFERENCE = Path(__file__).parents[1] / "golden" / "reference"


def is_known(name: str, dialect: str, **_: str) -> bool:
    """Only the official repository has RepVGGplus."""
    return name != "plus" or dialect == "official"


@pairwise({"name": NETWORKS, "dialect": DIALECTS, "form": FORMS, "suffix": [".pth", ".safetensors"]}, where=is_known)
def test_there_and_back_bit_for_bit(tmp_path: Path, name: str, dialect: str, form: str, suffix: str) -> None:
    model = network(name, deploy=form == "deploy")
    path = save_checkpoint(model, tmp_path / f"file{suffix}", dialect)
    loaded = load_checkpoint(path)
    assert_same_values(values_of(model), values_of(loaded))
    assert [variable.path for variable in model.weights] == [variable.path for variable in loaded.weights]
    metadata = get_metadata(loaded)
    assert metadata.form == form
    spelling = "plus" if name == "plus" and form == "training" else dialect
    if name != "plus":
        assert metadata.source == f"file{suffix} ({spelling} names, {form} form)"
    again = save_checkpoint(loaded, tmp_path / f"again{suffix}", dialect)
    if suffix == ".pth":
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_every_element_type(tmp_path: Path, dtype: str, suffix: str) -> None:
    model = network("plain", dtype=dtype)
    path = save_checkpoint(model, tmp_path / f"file{suffix}", "timm")
    assert {tensor.dtype.name for tensor in read_tensors(path).tensors.values()} == {dtype}
    assert_same_values(values_of(model), values_of(load_checkpoint(path, dtype=dtype)))


@pairwise({"name": NETWORKS, "dialect": DIALECTS, "form": FORMS}, where=is_known)
def test_torch_loads_it_strictly(tmp_path: Path, name: str, dialect: str, form: str) -> None:
    """Into the state of modules in which torch itself made every entry, counters included."""
    torch = pytest.importorskip("torch")
    model = network(name, deploy=form == "deploy")
    path = save_checkpoint(model, tmp_path / "file.pth", dialect)
    state = torch.load(path, weights_only=True)
    assert type(state) is collections.OrderedDict
    module = _torch_module(torch, state)
    assert set(module.state_dict()) == set(state)
    module.load_state_dict(state, strict=True)
    counters = {key for key in module.state_dict() if key.endswith("num_batches_tracked")}
    assert bool(counters) == (form == "training")
    assert all(state[key].dtype == torch.int64 and state[key].shape == () for key in counters)
    if form == "training":
        assert len(counters) == sum(isinstance(layer, BatchNorm) for layer in all_layers(model))


@pytest.mark.parametrize(
    ("name", "form"),
    sampled(
        [(name, form) for name in REPVGGS for form in FORMS],
        [*((name, "training") for name in first_of_each(REPVGGS, kind_of_variant)), ("RepVGG-B1g4", "deploy")],
    ),
)
def test_torch_saves_what_we_read_back(tmp_path: Path, name: str, form: Any) -> None:
    """For every variant's names and shapes; the widths are a sixteenth, so that it takes no time."""
    torch = pytest.importorskip("torch")
    architecture = REPVGGS[name].architecture
    small = Architecture(
        architecture.num_blocks,
        tuple(factor / 16 for factor in architecture.width_multiplier),
        dict.fromkeys(architecture.groups, 2),
        architecture.squeeze_excite,
        architecture.auxiliary_heads,
    )
    names = dialect_to_write("official", small).from_canonical(list(canonical_shapes(small, form)))
    generator = np.random.default_rng(0)
    shapes = canonical_shapes(small, form, num_classes=5)
    arrays = {names[name]: generator.uniform(0.5, 1, shape).astype(np.float32) for name, shape in shapes.items()}
    torch.save({key: torch.from_numpy(array) for key, array in arrays.items()}, tmp_path / "file.pth")
    again = state_dict(load_checkpoint(tmp_path / "file.pth"))
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, again.pop(key), strict=True)
    assert all(key.endswith("num_batches_tracked") for key in again)


def _torch_module(torch: Any, state: Any) -> Any:
    root = torch.nn.Module()
    for key, weight in state.items():
        path, _, leaf = key.rpartition(".")
        if leaf != "weight":
            continue
        bias = f"{path}.bias" in state
        if weight.ndim == 4:
            module = torch.nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2], bias=bias)
        elif weight.ndim == 2:
            module = torch.nn.Linear(weight.shape[1], weight.shape[0])
        else:
            module = torch.nn.BatchNorm2d(weight.shape[0])
        parent = root
        *parents, last = path.split(".")
        for part in parents:
            if part not in dict(parent.named_children()):
                parent.add_module(part, torch.nn.Module())
            parent = parent.get_submodule(part)
        parent.add_module(last, module)
    return root


@pytest.mark.parametrize("file", ["official_train.pth", "official_deploy_se.pth", "plus_train.pth"])
def test_the_names_and_order_of_the_official_repository(tmp_path: Path, file: str) -> None:
    torch = pytest.importorskip("torch")
    path = save_checkpoint(load_checkpoint(REFERENCE / file), tmp_path / file)
    ours, theirs = (torch.load(source, weights_only=True) for source in (path, REFERENCE / file))
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(ours[key], tensor)


@pytest.mark.parametrize("file", ["timm_train.safetensors", "timm_train_g4.pth"])
def test_the_names_of_timm(tmp_path: Path, file: str) -> None:
    before = read_tensors(REFERENCE / file)
    after = read_tensors(save_checkpoint(load_checkpoint(REFERENCE / file), tmp_path / file, "timm"))
    assert set(after.tensors) == set(before.tensors)
    for name, tensor in before.tensors.items():
        np.testing.assert_array_equal(tensor, after.tensors[name], strict=True)
    assert after.metadata == ({"format": "pt"} if file.endswith(".safetensors") else {})


def test_a_torch_network_gives_the_answers_of_ours(tmp_path: Path) -> None:
    """The deploy form, run by torch from the saved file."""
    torch = pytest.importorskip("torch")
    model = network("grouped", deploy=True)
    state = torch.load(save_checkpoint(model, tmp_path / "file.pth"), weights_only=True)
    images = random_images((2, 33, 40, 3))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    for key, kernel in state.items():
        if key.endswith("rbr_reparam.weight"):
            stride = 2 if key.startswith(("stage0.", "stage1.0.", "stage2.0.", "stage3.0.", "stage4.0.")) else 1
            bias = state[key.replace("weight", "bias")]
            x = torch.relu(torch.conv2d(x, kernel, bias, stride, 1, groups=x.shape[1] // kernel.shape[1]))
    logits: Array = (x.mean((2, 3)) @ state["linear.weight"].T + state["linear.bias"]).numpy()
    assert relative_error(logits, infer(model, images)) < 1e-5


def test_converted_in_place(tmp_path: Path) -> None:
    model = network("attention")
    switch_to_deploy(model)
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "file.pth", "timm"))
    images = random_images((1, 32, 32, 3))
    assert get_metadata(loaded).form == "deploy"
    assert relative_error(infer(model, images), infer(loaded, images)) < 1e-6


def test_converted_models(tmp_path: Path) -> None:
    deployed = reparameterize(network("plus"))
    loaded = load_checkpoint(save_checkpoint(deployed, tmp_path / "file.safetensors"))
    assert_same_values(values_of(deployed), values_of(loaded))


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    model = network("plain")
    with pytest.raises(InputError, match=r"saved as \.pth, \.pt, \.bin or \.safetensors. Received: 'file.onnx'"):
        save_checkpoint(model, tmp_path / "file.onnx")
    with pytest.raises(UnknownNameError, match="checkpoint dialect"):
        save_checkpoint(model, tmp_path / "file.pth", "keras")
    with pytest.raises(InputError, match="timm has no such network"):
        save_checkpoint(network("plus"), tmp_path / "file.pth", "timm")
    with pytest.raises(InputError, match="not a RepVGG network"):
        save_checkpoint(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]), tmp_path / "file.pth")
    assert not list(tmp_path.iterdir())


def test_another_epsilon_would_be_lost(tmp_path: Path) -> None:
    model = network("plain")
    model.get_layer("stage2_block1").conv1x1.norm.epsilon = 1e-3
    with pytest.raises(InputError, match=r"different epsilons \(1e-05, 0\.001\).*reparameterize"):
        save_checkpoint(model, tmp_path / "file.pth")


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = save_checkpoint(network("plain"), tmp_path / "file.safetensors")
    before = path.read_bytes()
    other = trained_like(network("plain"), seed=9)
    with pytest.raises(OutputExistsError):
        save_checkpoint(other, path)
    assert path.read_bytes() == before
    save_checkpoint(other, path, force=True)
    assert_same_values(values_of(other), values_of(load_checkpoint(path)))


@pytest.mark.full
def test_a_variant_by_name(tmp_path: Path) -> None:
    model = create_model("RepVGG-B1g4", num_classes=2, deploy=True)
    loaded = load_checkpoint(save_checkpoint(model, tmp_path / "b1g4.pth", "mmpretrain"))
    assert get_metadata(loaded).variant == "RepVGG-B1g4"
