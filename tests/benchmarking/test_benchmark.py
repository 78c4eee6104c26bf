"""The whole benchmark on tiny networks: who competes, what is told, and that a wrong network does not compete."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import repvgg
from helpers import trained_like
from repvgg.base.errors import InputError, OutputExistsError
from repvgg.benchmarking import networks, run, runtimes
from repvgg.benchmarking.figures import Figures, Spread
from repvgg.benchmarking.machine import ForeignLoad, this_machine
from repvgg.benchmarking.picture import draw_benchmark
from repvgg.benchmarking.report import BenchmarkReport, NetworkFacts, Row
from repvgg.cli import main
from repvgg.cli.benchmark import print_benchmark
from repvgg.cli.terminal import console
from repvgg.core.architecture import Architecture
from repvgg.models.variants import VARIANTS, Published, Variant

pytest.importorskip("onnxruntime")

TINY = Variant("RepVGG-Tiny", Architecture((1, 1, 1, 1), (0.125,) * 4), Published("made up", top1=50.0))


def tiny_stock(size: int) -> Any:
    """Layers that this package writes in no format itself."""
    inputs = keras.Input((size, size, 3))
    x = keras.layers.Conv2D(8, 3, 2, padding="same", use_bias=False)(inputs)
    x = keras.layers.ReLU(6)(keras.layers.BatchNormalization()(x))
    x = keras.layers.DepthwiseConv2D(3, padding="same")(keras.layers.MaxPooling2D()(x))
    outputs = keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs, name="tiny_stock")


@pytest.fixture(autouse=True)
def tiny_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    stock = networks.Network("Stock-1", "Stock", 1e3, 40.0, "made up", tiny_stock, stock=True)
    monkeypatch.setitem(VARIANTS, TINY.name, TINY)  # type: ignore[arg-type]
    monkeypatch.setitem(networks.BASELINES, "Stock-1", stock)  # type: ignore[arg-type]
    monkeypatch.setattr("repvgg.benchmarking.turns.TURN", 0.001)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One network as ONNX with an open size, in Keras, with fixed batches, and with its own preprocessing."""
    folder = tmp_path_factory.mktemp("files")
    model = trained_like(repvgg.RepVGG([1, 1, 1, 1], [0.125] * 4, num_classes=5))
    repvgg.set_metadata(model, preprocessing=repvgg.Preprocessing(crop=40, resize=40))
    deployed = repvgg.reparameterize(model)
    repvgg.save_model(deployed, folder / "a.keras")
    repvgg.export(deployed, folder / "a.onnx")
    repvgg.export(deployed, folder / "a.repvgg", "native")
    repvgg.export(deployed, folder / "pixels.repvgg", "native", with_preprocessing=True)
    repvgg.export(deployed, folder / "fixed.onnx", batch=3, image_size=36)
    repvgg.export(deployed, folder / "pixels.onnx", with_preprocessing=True)
    return folder


def test_named_networks_run_in_every_runtime() -> None:
    report = repvgg.benchmark(["RepVGG-Tiny", "Stock-1"], size=32, rounds=2, batch=2)
    assert [(row.network.name, row.runtime) for row in report.rows] == [
        (name, runtime)
        for name in ("RepVGG-Tiny", "Stock-1")
        for runtime in ("Keras", "ONNX Runtime", "OpenVINO", "LiteRT", "Native engine")
    ]
    *others, stock_in_engine = report.rows
    assert {row.missing for row in others} == {None}
    # It is not a plain network.
    assert stock_in_engine.missing is not None
    assert "has no counterpart in this package's native export" in stock_in_engine.missing
    for row, figures in report.measured():
        assert figures.images_per_second > 0
        assert figures.batch == 2
        assert row.network.size == (32, 32)
    ours, stock = report.networks()
    cost = TINY.cost(image_size=32)
    assert (ours.parameters, ours.macs, ours.winograd) == (
        cost.deploy_parameters,
        cost.deploy_macs,
        pytest.approx(cost.winograd_multiplications),
    )
    # 16 x 16 after the stride, 8 x 8 after pooling; the depthwise one has stride 1.
    # Accuracies of other images than these.
    assert {network.top1 for network in report.networks()} == {None}
    assert stock.macs == 27 * 8 * 256 + 9 * 8 * 64 + 8 * 7
    assert stock.winograd == pytest.approx(27 * 8 * 256 + 9 * 8 * 64 * 4 / 9 + 8 * 7)
    assert len(report.load.rounds) == 2
    data = json.loads(json.dumps(report.to_dict()))
    assert data["rows"][1]["runtime"] == "ONNX Runtime"
    assert data["machine"]["processor"] == report.machine.processor


def test_int8_of_stock_networks_is_missing_with_its_reason() -> None:
    report = repvgg.benchmark(["RepVGG-Tiny", "Stock-1"], runtimes=["onnx-int8"], size=32, rounds=1)
    ours, stock = report.rows
    assert ours.figures is not None
    assert stock.figures is None
    assert stock.missing == "INT8 is made of networks that this package writes itself"


def test_a_network_that_answers_otherwise_does_not_compete(monkeypatch: pytest.MonkeyPatch) -> None:
    write = runtimes._write

    def wrong(runtime: Any, model: Any, path: Path, **options: Any) -> None:
        other = keras.models.clone_model(model)
        other.set_weights([1.01 * weight for weight in model.get_weights()])
        write(runtime, other, path, **options)

    monkeypatch.setattr(runtimes, "_write", wrong)
    report = repvgg.benchmark(["RepVGG-Tiny"], runtimes=["keras", "onnx"], size=32, rounds=1)
    assert report.rows[0].figures is not None
    assert report.rows[1].figures is None
    assert "its answers are others there: relative error" in (report.rows[1].missing or "")
    with pytest.raises(InputError, match=r"nothing to time\. RepVGG-Tiny, ONNX Runtime: its answers are others"):
        repvgg.benchmark(["RepVGG-Tiny"], runtimes=["onnx"], size=32, rounds=1)


def test_files_bring_their_runtime_their_size_and_what_they_are(files: Path) -> None:
    named = [files / name for name in ("a.onnx", "a.keras", "pixels.onnx", "a.repvgg", "pixels.repvgg")]
    report = repvgg.benchmark(named, rounds=1)
    runtimes = ["ONNX Runtime", "Keras", "ONNX Runtime", "Native engine", "Native engine"]
    assert [row.runtime for row in report.rows] == runtimes
    assert {row.network.size for row in report.rows} == {(40, 40)}
    assert all(row.network.top1 is None for row in report.rows)
    with pytest.raises(InputError, match=r"fixed.onnx' takes batches of 3, and `batch` is 1"):
        repvgg.benchmark([files / "fixed.onnx"], rounds=1)
    with pytest.raises(InputError, match=r"takes images of 36 x 36 pixels, and `size` is 64"):
        repvgg.benchmark([files / "fixed.onnx"], batch=3, size=64, rounds=1)
    fixed = repvgg.benchmark([files / "fixed.onnx"], batch=3, rounds=1)
    assert fixed.rows[0].network.size == (36, 36)


def test_a_variant_s_file_tells_its_cost(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = repvgg.create_model("RepVGG-Tiny", num_classes=5, deploy=True)
    repvgg.export(model, files / "named.onnx")
    (row,) = repvgg.benchmark([files / "named.onnx"], size=32, rounds=1).rows
    cost = TINY.cost(num_classes=5, image_size=32)
    assert (row.network.parameters, row.network.macs) == (cost.deploy_parameters, cost.deploy_macs)
    assert row.network.parameters == model.count_params()


def made_up(top1: tuple[float | None, ...] = (72.41, 76.48, 78.37, 76.31)) -> BenchmarkReport:
    names = ("RepVGG-A0", "RepVGG-A2", "RepVGG-B1", "ResNet-50")
    rows = []
    for name, accuracy, speed in zip(names, top1, (118.0, 33.0, 14.0, 40.0), strict=True):
        facts = NetworkFacts(name, networks.get_network(name).family, (224, 224), 10**7, 10**9, 5e8, accuracy, "paper")
        seconds = Spread(1 / speed, 0.97 / speed, 1.06 / speed)
        for runtime, factor in (("ONNX Runtime", 1.0), ("OpenVINO", 0.9)):
            rows.append(Row(facts, runtime, Figures(seconds.scaled(factor), Spread(1.0, 1.0, 1.0), 50, 1)))
    rows.append(Row(facts, "LiteRT", missing="Keras's export fails"))
    return BenchmarkReport(this_machine(), 1, 2, 10, "tensorflow", ForeignLoad((0.0, 0.01)), tuple(rows))


@pytest.mark.parametrize("top1", [(72.41, None, 78.37, None), (None,) * 4])
def test_picture_with_accuracies_known_and_unknown(tmp_path: Path, top1: tuple[float | None, ...]) -> None:
    draw_benchmark(made_up(top1), tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as picture:
        pixels = np.asarray(picture.convert("L"))
        assert picture.size[0] > 900
        assert picture.size[1] > 300
    assert (pixels < 200).mean() > 0.005, "nothing is drawn"
    with pytest.raises(OutputExistsError):
        draw_benchmark(made_up(top1), tmp_path / "speed.png")


def test_tables_are_whole_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    report = made_up()
    long = "a-file-in-a-deep-folder/" * 6 + "network.onnx"
    rows = (Row(NetworkFacts(long, None, (96, 128)), "ONNX Runtime", report.rows[0].figures), *report.rows)
    report = BenchmarkReport(**{**vars(report), "rows": rows})
    print_benchmark(console(), report)
    text = capsys.readouterr().out
    assert text.count(long) == 2
    words = " ".join(text.split())
    assert "RepVGG-A0 224 10.00 1.00 0.50 72.41" in words
    assert "RepVGG-A0 ONNX Runtime 118.0 8.47 8.22 to 8.98 1.00" in words
    assert f"{long} 96x128 - - - -" in words
    assert "LiteRT - - - -" in words
    assert "ResNet-50, LiteRT: Keras's export fails." in words
    assert report.machine.processor in text
    assert "Other processes kept" in text


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["repvgg", "benchmark", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


def test_command(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, picture = tmp_path / "speed.csv", tmp_path / "speed.png"
    outputs = ("--csv", table, "--picture", picture)
    assert command(monkeypatch, files / "a.onnx", files / "a.keras", "--rounds", 1, *outputs) == 0
    printed = capsys.readouterr().out
    assert "What is timed" in printed
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["runtime"] for row in rows] == ["ONNX Runtime", "Keras"]
    assert float(rows[0]["images_per_second"]) > 0
    assert picture.exists()

    # An output that is there is told of before anything is loaded.
    before = table.read_text()
    monkeypatch.setattr(run, "load_runner", None)
    assert command(monkeypatch, files / "a.onnx", *outputs) == 2
    assert "already exists" in capsys.readouterr().err
    assert table.read_text() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["RepVGG-A9"], "There is no network called 'RepVGG-A9'"),
        (["RepVGG-A0", "--runtimes", "onnx,tensorrt"], "There is no runtime called 'tensorrt'"),
        (["RepVGG-A0", "--batch", "0"], "Invalid value for '--batch'"),
        (["nothing.xml"], "The network 'nothing.xml' does not exist"),
    ],
)
def test_mistakes_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert command(monkeypatch, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", "").split())
