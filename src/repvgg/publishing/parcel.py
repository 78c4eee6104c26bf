"""The files of a repository, in a folder: written, read back, compared."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copyfile

from rich.console import Console

from repvgg.base.dependencies import require
from repvgg.base.errors import MissingDependencyError, VerificationError
from repvgg.base.progress import working
from repvgg.checkpoints.hub_config import FILE_NAME
from repvgg.exporting import export
from repvgg.models.saving import load_model, save_model
from repvgg.publishing.subject import Subject
from repvgg.publishing.weights import WEIGHTS, choose_weights, prove_weights, write_weights
from repvgg.reporting.gather import Contestant, assemble
from repvgg.reporting.run import write_card
from repvgg.runners import load_runner
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner
from repvgg.verification import verify

TRAINED, DEPLOYED, ONNX, INTEGERS, CARD = "model.keras", "deploy.keras", "model.onnx", "int8.onnx", "README.md"
OWN_FILES = (WEIGHTS, FILE_NAME, TRAINED, DEPLOYED, ONNX, INTEGERS, CARD)
"""All that a parcel may have. A later push replaces these, or takes them away, and leaves other files alone."""


@dataclass
class Parcel:
    """What lies in the folder.

    Attributes:
        title: the network.
        timm_name: what timm calls it; None if timm cannot build it.
        files: what each is, by name.
        left_out: what is missing, and why, a sentence each.
    """

    folder: Path
    title: str
    timm_name: str | None
    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file."""
        return {name: (self.folder / name).stat().st_size for name in self.files}


def build_parcel(subject: Subject, repository: str, folder: Path, *, license_name: str, out: Console) -> Parcel:
    """Writes everything into an empty folder.

    Raises:
        VerificationError: if what was written is not what was given; nothing of the folder should be used then.
    """
    # Layer by layer: compiling would take longer than the few images that are compared on.
    reference = KerasRunner(subject.reference, compiled=False)
    with working(out, "writing weights"):
        weights = choose_weights(subject)
        title = subject.deployed.repvgg_metadata.variant or subject.name
        parcel = Parcel(folder, title, weights.timm_name)
        write_weights(weights, folder)
        prove_weights(weights, reference, folder)
        parcel.files[WEIGHTS] = weights.what
        parcel.files[FILE_NAME] = "network, class names and preprocessing, as timm reads them"
    if weights.timm_name is None:
        parcel.left_out.append(
            "timm: it does not have this network, so timm.create_model cannot load the repository. "
            f"'{WEIGHTS}' has the names of the dialect '{weights.dialect.name}'."
        )
    contestants = []
    with working(out, "writing Keras files"):
        for name, model, what in (
            (TRAINED, subject.trained, "Keras, training form: to train on"),
            (DEPLOYED, subject.deployed, "Keras, plain stack of stock layers: loads without this package"),
        ):
            if model is not None:
                save_model(model, folder / name)
                contestants.append(_proved(reference, folder / name))
                parcel.files[name] = what
    _write_onnx(subject, parcel, out)
    facts = assemble(subject.name, contestants, training=subject.training, proof=subject.proof)
    write_card(
        facts,
        folder / CARD,
        repository=repository,
        timm_name=parcel.timm_name,
        license_name=license_name,
        files=parcel.files,
    )
    parcel.files[CARD] = "the model card"
    return parcel


def _write_onnx(subject: Subject, parcel: Parcel, out: Console) -> None:
    try:
        for module in ("onnx", "onnxruntime"):
            require(module, extra="onnx", purpose="Writing ONNX")
    except MissingDependencyError as error:
        parcel.left_out.append(f"'{ONNX}': {error}")
        return
    with working(out, "writing ONNX"):
        export(subject.deployed, parcel.folder / ONNX)
    parcel.files[ONNX] = "ONNX, float32: images (N, H, W, C) to logits"
    if subject.integers is not None:
        copyfile(subject.integers, parcel.folder / INTEGERS)
        load_runner(parcel.folder / INTEGERS)
        parcel.files[INTEGERS] = "ONNX, 8-bit integers, as trained"


def _proved(reference: Runner, path: Path) -> Contestant:
    runner = KerasRunner(load_model(path), path.name, compiled=False)
    report = verify(reference, runner)
    if not report.passed:
        raise VerificationError(f"'{path.name}' was written and read back: {report.summary()} Nothing is published.")
    return Contestant(path.name, runner, path)
