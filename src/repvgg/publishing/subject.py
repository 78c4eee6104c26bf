"""What is to be published: both forms of a network, and what its run tells of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from repvgg.base.errors import InputError, VerificationError
from repvgg.base.run_folder import BEST, DEPLOYED, INT8, RunFolder
from repvgg.blocks.fake_quantization import QUANTIZED
from repvgg.blocks.layers import ReparameterizableBlock
from repvgg.conversion import reparameterize
from repvgg.models.full_precision import in_full_precision
from repvgg.models.layers import all_layers
from repvgg.models.metadata import get_metadata
from repvgg.models.recover import Recovered, recover
from repvgg.models.saving import load_model
from repvgg.publishing.request import require_publishable
from repvgg.reporting.facts import Training
from repvgg.reporting.subject import read_training
from repvgg.runners.keras import KerasRunner
from repvgg.verification import VerificationReport, verify


@dataclass(frozen=True)
class Subject:
    """A classifier that a repository is made of.

    Attributes:
        name: of the run, the file or the model.
        trained: the training form, as a Keras model; None where only the plain stack is known.
        deployed: the plain stack.
        proof: both compared; None where there is only one.
        training: what the run's folder tells.
        integers: the INT8 file that a quantization-aware run ended in.
    """

    name: str
    trained: Any | None
    deployed: Any
    proof: VerificationReport | None = None
    training: Training | None = None
    integers: Path | None = None

    @property
    def reference(self) -> Any:
        """The network as it was trained, as far as it is known; all files are compared with it."""
        return self.deployed if self.trained is None else self.trained


def find_subject(network: Any) -> Subject:
    """Both forms of what was given: a run's folder, a `.keras` file, a checkpoint, or a Keras model.

    Raises:
        FileError: if it is missing or damaged.
        InputError: if it is not a classifier that this package built.
        VerificationError: if its two forms differ.
    """
    if not isinstance(network, str | Path | keras.Model):
        raise InputError(
            f"A run's folder, a network's file or a keras.Model was expected, and a {type(network).__name__} came."
        )
    if not isinstance(network, str | Path):
        return _of_model(network, str(getattr(network, "name", "network")))
    path = Path(network)
    require_publishable(path)
    if not path.is_dir():
        from repvgg.checkpoints import load_checkpoint

        return _of_model(load_checkpoint(path), path.stem)
    return _of_run(RunFolder(path))


def _of_run(folder: RunFolder) -> Subject:
    training = read_training(folder)
    name = folder.path.resolve().name
    best = load_model(folder / BEST) if (folder / BEST).exists() else None
    deployed = load_model(folder / DEPLOYED) if (folder / DEPLOYED).exists() else None
    if best is None or (_is_quantized(best) and deployed is not None):
        integers = folder / INT8
        _require_classifier(deployed)
        return Subject(name, None, deployed, None, training, integers if integers.exists() else None)
    return _of_model(best, name, deployed, training)


def _of_model(model: Any, name: str, deployed: Any = None, training: Training | None = None) -> Subject:
    if _is_quantized(model):
        raise InputError(
            f"'{model.name}' calculates with fake quantization, for training in 8 bits. Publish the folder of its run, "
            "when that has come to its end."
        )
    _require_classifier(model)
    model = in_full_precision(model)
    if not any(isinstance(layer, ReparameterizableBlock) and not layer.deploy for layer in all_layers(model)):
        return Subject(name, None, model, None, training)
    deployed = reparameterize(model) if deployed is None else deployed
    proof = verify(KerasRunner(model, compiled=False), KerasRunner(deployed, compiled=False))
    if not proof.passed:
        raise VerificationError(f"{proof.summary()} Nothing is published.")
    return Subject(name, model, deployed, proof, training)


def _is_quantized(model: Any) -> bool:
    return any(isinstance(layer, QUANTIZED) for layer in all_layers(model))


def _require_classifier(model: Any) -> Recovered:
    recovered = recover(model)
    names = get_metadata(model).class_names
    if recovered.num_classes is None:
        raise InputError(f"'{model.name}' has no classifier, and image classifiers are what is published.")
    if names is not None and len(names) != recovered.num_classes:
        raise InputError(
            f"'{model.name}' has {recovered.num_classes} outputs and {len(names)} class names. Set them with "
            "repvgg.set_metadata(model, class_names=...)."
        )
    return recovered
