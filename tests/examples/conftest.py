"""Pictures, a network that tells them apart, and its artifacts."""

from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

import repvgg
from helpers import trained_like
from repvgg.data import read_batch
from repvgg.exporting import export
from repvgg.runners import as_runner
from serving import CLASSES, EXAMPLES, FORMS, PREPROCESSING, picture


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smaller and larger than the network's images, in colour and grey, one lying on its side."""
    folder = tmp_path_factory.mktemp("pictures")
    names = [folder / name for name in ("small.png", "grey.png", "turned.jpg")]
    Image.fromarray(picture(41, 38, seed=0)).save(names[0])
    Image.fromarray(picture(301, 140, seed=1)).convert("L").save(names[1])
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(picture(211, 333, seed=2)).save(names[2], quality=92, exif=turned)
    return names


@pytest.fixture(scope="session")
def network(pictures: list[Path]) -> Any:
    """In deploy form, with a classifier that tells these pictures apart."""
    keras.utils.set_random_seed(3)  # a fixture of a module comes before those of its tests, one of which sets the seed
    model = trained_like(repvgg.RepVGG([1, 1, 2, 1], [0.25] * 4, num_classes=len(CLASSES)))
    repvgg.set_metadata(model, class_names=CLASSES, preprocessing=PREPROCESSING)
    deployed = repvgg.reparameterize(model)
    logits = as_runner(deployed)(read_batch(pictures, PREPROCESSING))
    kernel, bias = deployed.layers[-1].get_weights()
    factor = 0.4 / logits.std(axis=0)
    deployed.layers[-1].set_weights([kernel * factor, (bias - logits.mean(axis=0)) * factor])
    return deployed


@pytest.fixture(scope="session")
def artifacts(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Writes each artifact when it is first asked for."""

    @cache
    def artifact(target: str, form: str) -> Path:
        path = tmp_path_factory.mktemp("artifacts") / EXAMPLES[target][1]
        options = dict(FORMS[form])
        if form == "int8":
            pixels = np.stack([picture(48, 48, seed) for seed in range(8)])
            options["calibration"] = PREPROCESSING.normalize(pixels)
        export(network, path, target, **options)
        return path

    return artifact
