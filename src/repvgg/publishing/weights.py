"""A network's weights for PyTorch's libraries: in timm's names if timm can build it, else in the authors'."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repvgg.base.errors import VerificationError
from repvgg.base.metadata import Metadata
from repvgg.checkpoints.canonical import CLASSIFIER, REPARAM
from repvgg.checkpoints.dialects import dialect_to_write
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.hub_config import FILE_NAME, TIMM_NAMES, UNNAMED, HubConfig, timm_builds
from repvgg.checkpoints.loading import build_model, checkpoint_of
from repvgg.checkpoints.published import load_published
from repvgg.checkpoints.saving import state_dict, write_safetensors
from repvgg.core.architecture import EPSILON, PUBLISHED, Architecture
from repvgg.models.metadata import get_metadata
from repvgg.models.recover import recover
from repvgg.models.variants import VARIANTS, Variant, as_deployed, find_variant
from repvgg.publishing.subject import Subject
from repvgg.runners.classifier import preprocessing_of
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner
from repvgg.verification import verify

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Weights:
    """A Keras model whose tensors go into the file.

    Attributes:
        dialect: whose names they get.
        config: what is said of them beside it.
        what: the file, for people.
    """

    model: Any
    dialect: Dialect
    config: HubConfig
    what: str

    @property
    def timm_name(self) -> str | None:
        """What timm calls the network that it builds of them; None if it builds none."""
        return self.config.architecture if self.dialect.name.startswith("timm") else None


def choose_weights(subject: Subject) -> Weights:
    """The form and the names in which most programs can read the network.

    timm does not build plain stacks. What is one, or has blocks that timm does not have, is expanded into the training
    form of the network that timm has with the same convolutions, which computes the same function.
    """
    model = subject.reference
    recovered = recover(model)
    adaptation = replace(recovered.architecture.adaptation, epsilon=EPSILON)
    plain = replace(recovered.architecture, adaptation=PUBLISHED)
    variant = find_variant(plain)
    own = variant.name if variant is not None else None
    metadata = replace(get_metadata(model), preprocessing=preprocessing_of(KerasRunner(model, compiled=False)))

    def config(architecture: str, **more: Any) -> HubConfig:
        return HubConfig(
            architecture,
            recovered.num_classes or 0,
            metadata.class_names,
            metadata.preprocessing,
            adaptation,
            **more,
        )

    timm = timm_builds(own, adaptation)
    if timm is not None and recovered.form == "training":
        return Weights(
            model, dialect_to_write("timm", plain), config(timm), f"weights in timm's names ({timm}), training form"
        )
    twin = _with_the_same_convolutions(plain)
    timm = timm_builds(twin.name, adaptation) if twin is not None else None
    if twin is not None and timm is not None:
        architecture = replace(twin.architecture, adaptation=adaptation)
        return Weights(
            _expanded(subject.deployed, architecture, twin.name),
            dialect_to_write("timm", architecture),
            config(timm, variant=own, form="deploy"),
            f"weights in timm's names ({timm}), the plain stack expanded into timm's branches",
        )
    official = dialect_to_write("official", plain)
    in_training = recovered.form == "training" and recovered.architecture.block in official.blocks
    return Weights(
        model if in_training else subject.deployed,
        official,
        config(own or UNNAMED, variant=own),
        f"weights in the names of the dialect '{official.name}', {'training' if in_training else 'deploy'} form",
    )


def write_weights(weights: Weights, folder: Path) -> None:
    """Writes the weights and `config.json`."""
    in_training = recover(weights.model).form == "training"
    tensors = state_dict(weights.model, weights.dialect.name, EPSILON if in_training else None)
    write_safetensors(tensors, folder / WEIGHTS)
    endings = (".conv.weight", f"{weights.dialect.parts[REPARAM]}.weight")
    first = [name for name in tensors if name.startswith(weights.dialect.stem) and name.endswith(endings)]
    text = weights.config.to_json(
        num_features=recover(weights.model).architecture.stage_widths[-1],
        first_conv=[name.removesuffix(".weight") for name in first],
        classifier=weights.dialect.heads[CLASSIFIER],
    )
    (folder / FILE_NAME).write_text(text, encoding="utf-8")


def prove_weights(weights: Weights, reference: Runner, folder: Path) -> None:
    """Reads both files back as whoever downloads them does, and compares.

    Raises:
        VerificationError: if the network that comes back is another one, or carries something else.
    """
    config = HubConfig.read(folder / FILE_NAME)
    loaded = load_published(folder / WEIGHTS, config, f"'{folder / WEIGHTS}'")
    report = verify(reference, KerasRunner(loaded, WEIGHTS, compiled=False))
    if not report.passed:
        raise VerificationError(f"'{WEIGHTS}' was written and read back: {report.summary()} Nothing is published.")
    told: Metadata = get_metadata(loaded)
    if config != weights.config or (told.class_names, told.preprocessing) != (config.class_names, config.preprocessing):
        raise VerificationError(
            f"'{FILE_NAME}' was written and read back, and says something else then: {config} instead of "
            f"{weights.config}. Nothing is published."
        )


def _with_the_same_convolutions(architecture: Architecture) -> Variant | None:
    plain = as_deployed(architecture)
    return next((VARIANTS[name] for name in TIMM_NAMES if as_deployed(VARIANTS[name].architecture) == plain), None)


def _expanded(deployed: Any, architecture: Architecture, variant: str) -> Any:
    checkpoint = checkpoint_of(deployed, source=deployed.name)
    network = replace(checkpoint.network, architecture=architecture)
    metadata = replace(checkpoint.metadata, variant=variant)
    return build_model(replace(checkpoint, network=network, metadata=metadata), from_deploy="expand")
