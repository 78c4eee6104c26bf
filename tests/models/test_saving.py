"""Files: what travels with a model, what Keras itself makes of it, and what becomes of bad ones."""

import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import assert_same_values, infer, random_images, small_network, trained_like, values_of
from repvgg.base.errors import FileError, InputError, OutputExistsError
from repvgg.base.metadata import Metadata, Preprocessing
from repvgg.blocks import RepVGGBlock
from repvgg.conversion import reparameterize
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.saving import load_model, load_weights, read_metadata, save_model

METADATA = Metadata(
    variant="RepVGG-A0",
    form="training",
    class_names=("daisy", "Löwenzahn", "rose", "tulip", "向日葵"),
    preprocessing=Preprocessing(crop=32, resize=36, mean=(0.5, 0.25, 0.125), std=(1, 2, 4)),
    source="trained on flowers",
    verification={"max_relative_error": 1e-6, "passed": True},
)


def make_model() -> Any:
    model = trained_like(small_network())
    set_metadata(model, METADATA)
    return model


@pytest.mark.backends
def test_everything_comes_back(tmp_path: Path) -> None:
    model = make_model()
    path = save_model(model, tmp_path / "model.keras")
    loaded = load_model(path)
    assert get_metadata(loaded) == METADATA
    assert_same_values(values_of(model), values_of(loaded))
    images = random_images((2, 40, 40, 3))
    np.testing.assert_array_equal(infer(model, images), infer(loaded, images))
    assert read_metadata(path) == METADATA


def test_metadata_go_through_conversion(tmp_path: Path) -> None:
    deployed = reparameterize(make_model())
    metadata = get_metadata(load_model(save_model(deployed, str(tmp_path / "deployed.keras"))))
    assert metadata.form == "deploy"
    assert (metadata.class_names, metadata.preprocessing) == (METADATA.class_names, METADATA.preprocessing)


def test_metadata_survive_a_second_saving(tmp_path: Path) -> None:
    first = save_model(make_model(), tmp_path / "first.keras")
    second = save_model(load_model(first), tmp_path / "second.keras")
    assert read_metadata(second) == METADATA


def test_files_of_plain_keras_have_no_metadata(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "plain.keras")
    assert get_metadata(load_model(tmp_path / "plain.keras")) == Metadata(form="deploy")


def test_only_keras_files_are_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"saved as '.keras'. Received: 'model.h5'"):
        save_model(make_model(), tmp_path / "model.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("precious")
    with pytest.raises(OutputExistsError, match=r"model\.keras' already exists .*--force"):
        save_model(make_model(), path)
    assert path.read_text() == "precious"
    save_model(make_model(), path, force=True)
    assert read_metadata(path) == METADATA
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("existing", [True, False])
def test_a_failing_save_leaves_everything_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    path = tmp_path / "model.keras"
    if existing:
        path.write_text("precious")
    model = make_model()

    def fail_halfway(target: Path) -> None:
        Path(target).write_bytes(b"PK half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(model, "save", fail_halfway)
    with pytest.raises(OSError, match="No space left"):
        save_model(model, path, force=True)
    assert [entry.name for entry in tmp_path.iterdir()] == (["model.keras"] if existing else [])
    if existing:
        assert path.read_text() == "precious"


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    assert save_model(make_model(), tmp_path / "new" / "folder" / "model.keras").is_file()


# Bad files


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"The model '.*none\.keras' does not exist"):
        load_model(tmp_path / "none.keras")
    with pytest.raises(FileError, match="is a folder, and a model was expected"):
        load_model(tmp_path)
    (tmp_path / "empty.keras").touch()
    with pytest.raises(FileError, match=r"empty\.keras' is empty \(0 bytes\)"):
        load_model(tmp_path / "empty.keras")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = save_model(make_model(), tmp_path / "model.keras")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileError, match=r"model\.keras' is not a Keras model, or a truncated one"):
        load_model(path)


def test_a_flipped_bit(tmp_path: Path) -> None:
    path = save_model(make_model(), tmp_path / "model.keras")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"is damaged: its part 'model\.weights\.h5' does not match its checksum"):
        load_model(path)


def test_something_else_by_the_name_of_keras(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("not a model")
    with pytest.raises(FileError, match="is not a Keras model"):
        load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "hello")
    with pytest.raises(FileError, match="is a zip archive, but not a Keras model"):
        load_model(path)


def rewritten(path: Path, member: str, content: str) -> Path:
    """`path` with one member replaced."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, member: content.encode()}.items():
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "metadata cannot be read"),
        ("[]", "metadata cannot be read"),
        ("{}", "metadata cannot be read"),
        ('{"repvgg": 2}', "written by a newer version of repvgg"),
        ('{"repvgg": 1, "colour": "red"}', "metadata cannot be read"),
        ('{"repvgg": 1, "preprocessing": {"crop": 0}}', "`crop` \\(=0\\)"),
    ],
)
def test_damaged_metadata(tmp_path: Path, content: str, message: str) -> None:
    path = rewritten(save_model(make_model(), tmp_path / "model.keras"), "repvgg.json", content)
    with pytest.raises(FileError, match=message):
        load_model(path)


def test_a_configuration_that_builds_nothing(tmp_path: Path) -> None:
    path = rewritten(save_model(make_model(), tmp_path / "model.keras"), "config.json", '{"class_name": "Nothing"}')
    with pytest.raises(FileError, match=r"model\.keras' is a Keras file that cannot be loaded"):
        load_model(path)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_weights_fit_as_a_whole_or_nothing_is_touched(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"other{ending}"
    other = trained_like(small_network(num_blocks=[1, 2, 3, 1]), seed=9)
    other.save(path) if ending == ".keras" else other.save_weights(path)
    model = make_model()
    before = values_of(model)
    with pytest.raises(FileError, match="do not fit this model"):
        load_weights(model, path)
    assert_same_values(before, values_of(model))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 0}, r"`crop` \(=0\) must be at least 1 and at most `resize` \(=256\)"),
        ({"crop": 300}, r"`crop` \(=300\) must be .* at most `resize` \(=256\)"),
        ({"mean": (0.5,)}, "`mean` and `std` need 1, 3 or 4 values each. Received 1 and 3"),
        ({"mean": (0, 0), "std": (1, 1)}, "need 1, 3 or 4 values each. Received 2 and 2"),
        ({"std": (1, 0, 1)}, "`std` must be above 0"),
    ],
)
def test_preprocessing_that_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Preprocessing(**changes)


def test_preprocessing_knows_its_channels() -> None:
    assert Preprocessing().channels == 3
    assert Preprocessing(mean=(0.5,), std=(0.5,)).channels == 1


@pytest.mark.parametrize("deploy", [False, True])
def test_what_keras_alone_saved_is_of_the_form_it_shows(deploy: bool, tmp_path: Path) -> None:
    model = small_network(deploy=deploy)
    model.save(tmp_path / "model.keras")
    expected = "deploy" if deploy else "training"
    for loaded in (keras.models.load_model(tmp_path / "model.keras"), load_model(tmp_path / "model.keras")):
        assert get_metadata(loaded).form == expected
        set_metadata(loaded, class_names=("a", "b", "c", "d", "e"))
        assert get_metadata(loaded) == Metadata(form=expected, class_names=("a", "b", "c", "d", "e"))


def test_blocks_that_were_switched_in_place_show_it() -> None:
    images = keras.Input((16, 16, 3))
    model = keras.Model(images, RepVGGBlock(8)(images))
    assert get_metadata(model).form == "training"
    model.layers[1].switch_to_deploy()
    assert get_metadata(model).form == "deploy"
