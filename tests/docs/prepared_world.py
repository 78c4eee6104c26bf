"""The folder that the pages' examples run in, and the names that they take for given."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any

import keras
import numpy as np
import pytest
from code_blocks import ROOT
from PIL import Image
from small_run import make_images

import repvgg
from helpers import infer, random_images, small_network, trained_like
from hub_server import logged_in
from repvgg.checkpoints.hub_config import HubConfig

RUN = "runs/RepVGG-A0-flowers"
PREPROCESSING = repvgg.Preprocessing(crop=32, resize=36)

SHORTER = {
    "epochs=40": "epochs=1",
    "epochs=10": "epochs=1",
    "10 * steps": "steps",
    "image_size=224": "image_size=32",
    "--integer-io int8 --batch 1 --size 96": "--integer-io int8 --batch 1 --size 32",
}
"""What stands in a page, and what is run instead: the same, over sooner."""


def make_world(folder: Path) -> None:
    """Four dozen pictures, a run on them, and the files of its network under the names that pages use."""
    make_images(folder / "flowers", per_class=12)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    for name in ("photo.jpg", "tulips.jpg"):
        photo.save(folder / name)
    model = repvgg.create_model("RepVGG-A0", num_classes=3)
    repvgg.set_metadata(model, preprocessing=PREPROCESSING)
    recipe = repvgg.RECIPES["quick"].changed(epochs=1, size=32, test_size=32, batch_size=8)
    options: dict[str, Any] = {"recipe": recipe, "tensorboard": False, "report": False}
    result = repvgg.train(folder / "flowers", model, output=folder / RUN, **options)
    repvgg.save_model(result.model, folder / "model.keras")
    repvgg.export(result.deployed, folder / "flowers.onnx")
    for name in ("deploy.onnx", "runs/unet/model.onnx"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "flowers.onnx", folder / name)
    repvgg.save_model(result.model, folder / "runs/unet/train.keras")
    repvgg.save_model(result.deployed, folder / "runs/unet/deploy.keras")
    repvgg.export(result.deployed, folder / "model.onnx", softmax=True, with_preprocessing=True)
    repvgg.save_checkpoint(result.model, folder / "RepVGG-A0-train.pth")
    repvgg.save_checkpoint(result.deployed, folder / "deploy.pth")
    grouped = small_network(override_groups_map={2: 4, 4: 4})
    repvgg.save_checkpoint(trained_like(grouped), folder / "RepVGG-B2g4-200epochs-train.pth")
    for name, part in (("flowers.csv", "train"), ("val.csv", "val")):
        files = sorted((folder / "flowers" / part).rglob("*.jpg"))
        rows = [f"{file.relative_to(folder)},{file.parent.name}" for file in files]
        (folder / name).write_text("\n".join(["path,label", *rows, ""]), encoding="utf-8")
    (folder / "flowers.toml").write_text('data = "flowers"\nsize = 32\nepochs = 1\n', encoding="utf-8")


@contextmanager
def published_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub on loopback with weights for RepVGG-A0, as narrow as it is here, and room for more."""
    file = cache.with_name("published.safetensors")
    repvgg.save_checkpoint(trained_like(repvgg.create_model("RepVGG-A0")), file, dialect="timm")
    config = HubConfig("repvgg_a0", 1000).to_json(num_features=1280, first_conv=[], classifier="head.fc")
    with logged_in(cache.parent, monkeypatch) as hub:
        files = {"model.safetensors": file.read_bytes(), "config.json": config.encode()}
        hub.add("timm/repvgg_a0.rvgg_in1k", files)
        yield


def given_names(page: str, folder: Path) -> dict[str, Any]:
    """What the examples of a page begin with: what the text around them says, and no more."""
    names: dict[str, Any] = {"__name__": "example", "repvgg": repvgg, "keras": keras, "np": np}
    return names | GIVEN.get(page, dict)()


def _readme() -> dict[str, Any]:
    shutil.rmtree("runs")  # The page's first lines train,
    for name in ("model.onnx", "model.keras"):  # and write these.
        Path(name).unlink()
    return {"images": random_images((2, 128, 128, 3)), "inputs": keras.Input((32, 32, 3))}


def _model() -> dict[str, Any]:
    Path("model.onnx").unlink()
    return {"model": repvgg.load_model("model.keras"), "images": random_images((16, 32, 32, 3))}


def _pytorch() -> dict[str, Any]:
    """A program in PyTorch with strides and an epsilon of its own, and its checkpoint."""
    torch = import_module("torch")
    network = trained_like(small_network(stem_strides=1, epsilon=1e-3))
    repvgg.save_checkpoint(network, "mine.pth", epsilon=1e-3)

    def program(images: Any) -> Any:
        return torch.from_numpy(infer(network, images.numpy().transpose(0, 2, 3, 1)))

    return {
        "model": program,
        "images": torch.from_numpy(random_images((2, 3, 32, 32))),
        "training_images": random_images((16, 32, 32, 3)),
    }


def _deployed() -> dict[str, Any]:
    model = repvgg.load_model("model.keras")
    repvgg.export(model, "model.repvgg", "native")
    return {"deployed": repvgg.reparameterize(model), "images": random_images((1, 32, 32, 3))}


def _trainable() -> dict[str, Any]:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return _model() | {"labels": np.arange(16) % 3, "loss": loss}


def _runtimes() -> dict[str, Any]:
    """As at the top of the files in examples/serving."""
    repvgg.export(repvgg.load_model("model.keras"), "model.xml", "openvino")
    repvgg.export(repvgg.load_model("model.keras"), "model.tflite", "litert", batch=1, image_size=32)
    core = import_module("openvino").Core()
    litert = import_module("ai_edge_litert.interpreter")
    return {
        **{name: import_module(name) for name in ("json", "onnxruntime", "zipfile")},
        "core": core,
        "model": core.read_model("model.xml"),
        "Interpreter": litert.Interpreter,
        "read_pixels": run_path(str(ROOT / "examples" / "serving" / "onnx_runtime.py"))["read_pixels"],
    }


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "README.md": _readme,
    "docs/checkpoints.md": _pytorch,
    "docs/engine.md": _deployed,
    "docs/int8.md": _model,
    "docs/quantization-aware.md": _trainable,
    "docs/serving.md": _runtimes,
    "docs/tutorials/int8.md": _model,
}
