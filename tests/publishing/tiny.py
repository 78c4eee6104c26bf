"""Small networks under names of their own, one of which timm is told to have, and a run that ended in one."""

from pathlib import Path
from typing import Any

import keras
import pytest

import repvgg
from helpers import trained_like
from repvgg.base.run_folder import BEST, DEPLOYED, RunFolder
from repvgg.checkpoints import hub_config
from repvgg.core.architecture import Architecture
from repvgg.models.variants import VARIANTS, Published, Variant
from repvgg.verification import verify

CLASSES = ("daisy", "rose", "tulip")
PREPROCESSING = repvgg.Preprocessing(crop=32, resize=37, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25))
KNOWN, OTHER_BLOCKS = "RepVGG-tiny", "QARepVGG-tiny"
"""Of the same convolutions; timm has the first one."""


def name_tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives the small networks their names."""
    for name, block in ((KNOWN, "RepVGGBlock"), (OTHER_BLOCKS, "QARepVGGBlock")):
        architecture = Architecture((1, 2, 1, 1), (0.125,) * 4, block=block)
        monkeypatch.setitem(VARIANTS, name, Variant(name, architecture, Published("nobody")))
    monkeypatch.setitem(hub_config.TIMM_NAMES, KNOWN, "repvgg_tiny")
    monkeypatch.setitem(hub_config._VARIANTS, "repvgg_tiny", KNOWN)


def tiny(block: str = "RepVGGBlock", depths: tuple[int, ...] = (1, 2, 1, 1), seed: int = 0, **options: Any) -> Any:
    """A classifier that carries names and preprocessing."""
    keras.utils.set_random_seed(seed)
    model = trained_like(repvgg.RepVGG(depths, [0.125] * 4, num_classes=3, block=block, **options), seed)
    channels = model.input_shape[-1]
    preprocessing = PREPROCESSING if channels == 3 else repvgg.Preprocessing.for_channels(channels, 32, 37)
    repvgg.set_metadata(model, class_names=CLASSES, preprocessing=preprocessing, source="a test")
    return model


def make_run(folder: Path, model: Any) -> Path:
    """The folder of a run that has come to its end."""
    run = RunFolder(folder)
    settings = {"data": "/home/somebody/flowers", "weights": "/home/somebody/start.keras", "recipe": {"epochs": 1}}
    about = {"command": "repvgg train /home/somebody/flowers", "versions": {}}
    run.begin({}, {"settings": settings, "about": about})
    run.write_history([{"epoch": 1, "val_accuracy": 0.75, "accuracy": 0.5, "seconds": 3.0}])
    deployed = repvgg.reparameterize(model)
    validation = {"images": 8, "top5": 1.0, "deployed_top1": 0.75}
    repvgg.set_metadata(deployed, verification={**verify(model, deployed).to_dict(), "validation": validation})
    repvgg.save_model(model, folder / BEST)
    repvgg.save_model(deployed, folder / DEPLOYED)
    return folder
