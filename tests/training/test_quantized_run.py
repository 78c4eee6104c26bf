"""A run that begins with a trained network and ends in a file of 8-bit integers."""

from pathlib import Path

import pytest
from small_run import make_images, small_model, small_settings

import repvgg
from repvgg.base.errors import InputError, UnknownNameError
from repvgg.base.processor import overflows
from repvgg.cli import main
from repvgg.quantization.qat_scales import QuantizationScales
from repvgg.training.quantized import quantized_start
from sampling import sampled

pytestmark = pytest.mark.processor

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("per_channel", sampled([False, True], []))
def test_from_a_trained_network_to_integers(data: Path, tmp_path: Path, per_channel: bool) -> None:
    model = small_model()
    repvgg.set_metadata(
        model, class_names=("blue", "green", "red"), preprocessing=repvgg.Preprocessing(crop=32, resize=36)
    )
    repvgg.save_model(model, tmp_path / "trained.keras")
    settings = small_settings(recipe=repvgg.RECIPES["qat"].changed(epochs=2, batch_size=8))

    result = repvgg.train(
        data, quantized_start(tmp_path / "trained.keras", per_channel=per_channel), output=tmp_path / "run", **settings
    )

    assert result.outcome is not None
    assert result.outcome.images == 12
    # Integers and rounded floats are the same numbers but for ties.
    assert result.outcome.same_class >= 11
    # Learning from itself, the network goes on answering as it did.
    before = repvgg.evaluate(model, data / "val")
    assert abs(result.outcome.deployed_top1 - before.top1) <= 1 / 12
    scales = QuantizationScales.from_json((tmp_path / "run" / "scales.json").read_text())
    assert len(scales.layers["stage1_block0"].weight or ()) == (8 if per_channel else 1)
    # Right on every processor.
    assert scales.weight_bits == 7
    quantization = repvgg.load_runner(tmp_path / "run" / "int8.onnx").metadata.quantization
    assert quantization is not None
    assert quantization["processor"] == "portable"
    integers = repvgg.evaluate(tmp_path / "run" / "int8.onnx", data / "val")
    # As above: one of twelve may be a tie.
    assert abs(integers.top1 - result.outcome.deployed_top1) <= 1 / 12 + 1e-9
    deployed = repvgg.load_model(tmp_path / "run" / "deploy.keras")
    # The size that the network carries is what it is trained and measured at.
    assert repvgg.get_metadata(deployed).preprocessing == repvgg.Preprocessing(crop=32, resize=36)


def test_the_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    preprocessing = repvgg.Preprocessing(crop=32, resize=36)
    repvgg.set_metadata(model, class_names=("blue", "green", "red"), preprocessing=preprocessing)
    repvgg.save_model(model, tmp_path / "trained.keras")
    options = ["--epochs", "1", "--batch", "8", "--no-tensorboard", "--output", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["repvgg", "train", str(data), "--qat", str(tmp_path / "trained.keras"), *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert (tmp_path / "run" / "int8.onnx").exists()
    assert (tmp_path / "run" / "scales.json").exists()


def test_processors(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repvgg.save_model(small_model(), tmp_path / "trained.keras")
    monkeypatch.setattr("repvgg.training.quantized.overflows", lambda: False)
    assert quantized_start(tmp_path / "trained.keras", per_channel=True, processor="vnni").weight_bits == 8
    # A run goes on with the grids it was begun with.
    start = quantized_start(tmp_path / "trained.keras", per_channel=True)
    assert start.describe() == "per-channel weights of 7 bits"
    monkeypatch.setenv("REPVGG_PROCESSOR", "avx2")
    monkeypatch.setattr("repvgg.training.quantized.overflows", overflows)
    with pytest.raises(InputError, match=r"cannot be run here, .*--processor portable"):
        quantized_start(tmp_path / "trained.keras", per_channel=True, processor="vnni")
    with pytest.raises(UnknownNameError, match="no kind of processor called 'arm'"):
        quantized_start(tmp_path / "trained.keras", per_channel=True, processor="arm")
    monkeypatch.setattr("sys.argv", ["repvgg", "train", str(data), "--processor", "vnni"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2


def test_a_network_without_preprocessing_needs_a_size(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image size of its own, and the network carries none"):
        repvgg.train(data, small_model(), recipe=repvgg.RECIPES["qat"].changed(distill=0), output=tmp_path / "run")
