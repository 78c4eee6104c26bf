"""Who may compete: this package's networks by name, those of the paper's table that Keras ships, and files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repvgg.base.errors import InputError, UnknownNameError
from repvgg.models.variants import PAPER, VARIANTS, known_variant

MOBILENET = "Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv 1905.02244, table 3"


@dataclass(frozen=True)
class Network:
    """A network that is timed with random weights, which make no difference to its speed.

    Attributes:
        family: networks of one family are one curve in the picture.
        parameters: for the memory it will need; counted exactly when it is built.
        top1: published ImageNet accuracy in percent, at `image_size` pixels a side; `source` says where.
        build: makes the network for images of so many pixels a side; its outputs are logits of 1000 classes.
        stock: has layers that this package writes in no format, so that Keras's own export does.
    """

    name: str
    family: str
    parameters: float
    top1: float | None
    source: str | None
    build: Callable[[int], Any]
    image_size: int = 224
    stock: bool = False


@dataclass(frozen=True)
class NetworkFile:
    """A file that runs in its own runtime."""

    path: Path

    @property
    def name(self) -> str:
        """What it is called in tables."""
        return self.path.name

    @property
    def in_keras(self) -> bool:
        """Whether it runs in Keras's backend."""
        return self.path.is_dir() or self.path.suffix == ".keras"


Entry = Network | NetworkFile


def _application(name: str, **options: Any) -> Callable[[int], Any]:
    def build(size: int) -> Any:
        import keras

        make = getattr(keras.applications, name)
        return make(weights=None, input_shape=(size, size, 3), classifier_activation=None, **options)

    return build


def _without_preprocessing(build: Callable[[int], Any], first: str) -> Callable[[int], Any]:
    """The network from one of its layers on: the others get normalized images, too."""

    def build_rest(size: int) -> Any:
        import keras

        model = build(size)
        rest = keras.Model(model.get_layer(first).input, model.output, name=model.name)
        # A copy, whose layers have one place each: those of the whole are in both.
        return keras.models.clone_model(rest)

    return build_rest


# The paper trained its baselines anew, in the same way as RepVGG; accuracies are of these trainings.
BASELINES: Mapping[str, Network] = {
    row.name: row
    for row in (
        Network("ResNet-50", "ResNet", 25.6e6, 76.31, f"{PAPER}, table 4", _application("ResNet50")),
        Network("ResNet-101", "ResNet", 44.7e6, 77.21, f"{PAPER}, table 4", _application("ResNet101")),
        Network("VGG-16", "VGG", 138.4e6, 72.21, f"{PAPER}, table 4", _application("VGG16")),
        Network(
            "EfficientNet-B0",
            "EfficientNet",
            5.3e6,
            75.11,
            f"{PAPER}, table 4",
            _without_preprocessing(_application("EfficientNetB0"), "stem_conv_pad"),
            stock=True,
        ),
        Network(
            "MobileNetV3-Large",
            "MobileNetV3",
            5.5e6,
            75.2,
            MOBILENET,
            _application("MobileNetV3Large", include_preprocessing=False),
            stock=True,
        ),
        Network(
            "MobileNetV3-Small",
            "MobileNetV3",
            2.6e6,
            67.4,
            MOBILENET,
            _application("MobileNetV3Small", include_preprocessing=False),
            stock=True,
        ),
    )
}

DEFAULT = (
    *("RepVGG-A0", "RepVGG-A1", "RepVGG-A2", "RepVGG-B0", "RepVGG-B1", "ResNet-50", "ResNet-101", "VGG-16"),
    *("EfficientNet-B0", "MobileNetV3-Large"),
)
"""Who competes if nobody is named."""


def known_names() -> list[str]:
    """All networks that can be named."""
    return [*VARIANTS, *BASELINES]


def get_network(name: str) -> Network:
    """The network of that name, in capitals or not.

    Raises:
        UnknownNameError: if there is none.
    """
    baseline = _known_baseline(name)
    if baseline is not None:
        return baseline
    variant = known_variant(name)
    if variant is None:
        raise UnknownNameError("network", name, known_names())
    architecture = variant.architecture

    def build(size: int) -> Any:
        from repvgg.models.model import build_described

        return build_described(architecture, 1000, (size, size, 3), deploy=True)

    return Network(
        variant.name,
        _family(variant.name),
        variant.cost().deploy_parameters,
        variant.published.top1,
        variant.published.source,
        build,
        variant.image_size,
    )


def _family(name: str) -> str:
    """RepVGG, RepVGG g4 ...: the kind, and the groups; sizes A0 to B3 are one row from small to large."""
    kind, _, size = name.partition("-")
    groups = f" g{size.rpartition('g')[2]}" if "g" in size else ""
    return f"{kind}{groups}"


def find_entries(names: Sequence[str | Path], endings: Sequence[str]) -> list[Entry]:
    """What was named: files by their ending or because they are there, networks otherwise.

    Args:
        endings: of files that can be run.

    Raises:
        UnknownNameError: for a name that is neither one of ours nor a file.
        FileError: for a file that is not there.
        InputError: if something is named twice.
    """
    from repvgg.base.files import require_file

    entries: list[Entry] = []
    for name in names:
        path = Path(name)
        if known_variant(str(name)) or _known_baseline(str(name)):
            entries.append(get_network(str(name)))
        elif path.suffix in endings or path.exists():
            if not path.is_dir():
                require_file(path, what="network")
            entries.append(NetworkFile(path))
        else:
            entries.append(get_network(str(name)))
    seen: set[str] = set()
    for entry in entries:
        label = str(entry.path) if isinstance(entry, NetworkFile) else entry.name
        if label in seen:
            raise InputError(f"'{label}' is named twice. Name each network once.")
        seen.add(label)
    return entries


def _known_baseline(name: str) -> Network | None:
    folded = name.casefold()
    return next((network for known, network in BASELINES.items() if known.casefold() == folded), None)
