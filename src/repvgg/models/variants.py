"""The named networks: one row each, with the source of every published figure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from repvgg.base.errors import UnknownNameError
from repvgg.core.architecture import PAPERS_BLOCK, PUBLISHED, Architecture, SqueezeExcite, alternate_groups
from repvgg.models.cost import Cost, count_cost

PAPER = "Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021, arXiv 2101.03697"
REPOSITORY = "https://github.com/DingXiaoH/RepVGG"
QA_PAPER = "Chu et al., Make RepVGG Greater Again: A Quantization-Aware Approach, AAAI 2024, arXiv 2212.01593"

AC_PAPER = "Ding et al., ACNet: Strengthening the Kernel Skeletons for Powerful CNN, ICCV 2019, arXiv 1908.03930"
DBB_PAPER = "Ding et al., Diverse Branch Block: Building a Convolution as an Inception-like Unit, arXiv 2103.13425"

MOBILEONE_PAPER = "Vasu et al., MobileOne: An Improved One Millisecond Mobile Backbone, CVPR 2023, arXiv 2206.04040"

REPOPT_PAPER = "Ding et al., Re-parameterizing Your Optimizers rather than Architectures, ICLR 2023, arXiv 2205.15242"
REPOPT_REPOSITORY = "https://github.com/DingXiaoH/RepOptimizers"


@dataclass(frozen=True)
class Published:
    """What the authors report for ImageNet-1k.

    `top1` is in percent at `Variant.image_size`; `examples_per_second` was measured on a GTX 1080 Ti in float32 at
    batch 128 and 224 px (paper, table 4).
    """

    source: str
    top1: float | None = None
    epochs: int | None = None
    examples_per_second: int | None = None


@dataclass(frozen=True)
class Variant:
    """A named network: its architecture as data, and what was published about it."""

    name: str
    architecture: Architecture
    published: Published
    image_size: int = 224

    def cost(self, num_classes: int | None = 1000, image_size: int | None = None) -> Cost:
        """Parameters and multiplications, at the image size of the published figures unless said otherwise."""
        side = image_size or self.image_size
        return count_cost(self.architecture, num_classes, (side, side))


A_DEPTHS = (2, 4, 14, 1)
B_DEPTHS = (4, 6, 16, 1)
D_DEPTHS = (8, 14, 24, 1)
"""RepVGG-D's and RepOpt-VGG-L's."""


def _row(
    name: str,
    depths: tuple[int, ...],
    a: float,
    b: float,
    *,
    groups: int = 1,
    top1: float | None = None,
    epochs: int = 120,
    speed: int | None = None,
) -> Variant:
    grouped: Mapping[int, int] = alternate_groups(groups, depths) if groups > 1 else {}
    return Variant(
        name=name,
        architecture=Architecture(depths, (a, a, a, b), grouped),
        published=Published(
            source=f"{PAPER}, tables 4 and 5",
            top1=top1,
            epochs=epochs if top1 is not None else None,
            examples_per_second=speed,
        ),
    )


_ROWS = (
    _row("RepVGG-A0", A_DEPTHS, 0.75, 2.5, top1=72.41, speed=3256),
    _row("RepVGG-A1", A_DEPTHS, 1, 2.5, top1=74.46, speed=2339),
    _row("RepVGG-A2", A_DEPTHS, 1.5, 2.75, top1=76.48, speed=1322),
    _row("RepVGG-B0", B_DEPTHS, 1, 2.5, top1=75.14, speed=1817),
    _row("RepVGG-B1", B_DEPTHS, 2, 4, top1=78.37, speed=685),
    _row("RepVGG-B1g2", B_DEPTHS, 2, 4, groups=2, top1=77.78, speed=792),
    _row("RepVGG-B1g4", B_DEPTHS, 2, 4, groups=4, top1=77.58, speed=868),
    _row("RepVGG-B2", B_DEPTHS, 2.5, 5, top1=78.78, speed=460),
    _row("RepVGG-B2g2", B_DEPTHS, 2.5, 5, groups=2),
    _row("RepVGG-B2g4", B_DEPTHS, 2.5, 5, groups=4, top1=79.38, epochs=200, speed=581),
    _row("RepVGG-B3", B_DEPTHS, 3, 5, top1=80.52, epochs=200, speed=363),
    _row("RepVGG-B3g2", B_DEPTHS, 3, 5, groups=2),
    _row("RepVGG-B3g4", B_DEPTHS, 3, 5, groups=4, top1=80.21, epochs=200, speed=464),
    Variant(
        name="RepVGG-D2se",
        architecture=Architecture(D_DEPTHS, (2.5, 2.5, 2.5, 5), squeeze_excite=SqueezeExcite("before_activation", 16)),
        published=Published(source=REPOSITORY, top1=83.55, epochs=200),
        image_size=320,
    ),
    Variant(
        name="RepVGGplus-L2pse",
        architecture=Architecture(
            D_DEPTHS,
            (2.5, 2.5, 2.5, 5),
            squeeze_excite=SqueezeExcite("after_activation", 4),
            auxiliary_heads=True,
        ),
        published=Published(source=REPOSITORY, top1=84.06, epochs=300),
        image_size=320,
    ),
)


def _in_the_shape_of(plain_name: str, prefix: str, block: str, source: str) -> Variant:
    """A RepVGG's depths, widths and groups with another block; no accuracy of it was published."""
    plain = next(row.architecture for row in _ROWS if row.name == plain_name)
    name = plain_name.replace("RepVGG", prefix)
    return Variant(name=name, architecture=replace(plain, block=block), published=Published(source=source))


def _quantization_aware(name: str, top1: float | None = None) -> Variant:
    """QARepVGG: depths, widths and groups of the RepVGG of the same letter, with a block made for INT8."""
    plain = next(row.architecture for row in _ROWS if row.name == name.removeprefix("QA"))
    published = Published(source=QA_PAPER, top1=top1, epochs=120 if top1 is not None else None)
    return Variant(name=name, architecture=replace(plain, block="QARepVGGBlock"), published=published)


_QA_ROWS = (
    _quantization_aware("QARepVGG-A0", top1=72.2),
    *(_quantization_aware(f"QARepVGG-{size}") for size in ("A1", "A2", "B0")),
    *(_quantization_aware(f"QARepVGG-{size}{groups}") for size in ("B1", "B2") for groups in ("", "g4")),
)


def _mobileone(
    name: str,
    widths: tuple[float, ...],
    *,
    copies: int = 1,
    attention: tuple[int, ...] | None = None,
    top1: float,
) -> Variant:
    """MobileOne: depthwise and pointwise blocks in turn; S4 has attention in the last of them, as the authors' code."""
    architecture = Architecture(
        (2, 8, 10, 1),
        widths,
        squeeze_excite=SqueezeExcite("before_activation", 16) if attention else None,
        block="MobileOneBlock",
        separable=True,
        copies=copies,
        squeeze_excite_blocks=attention,
    )
    published = Published(source=f"{MOBILEONE_PAPER}; https://github.com/apple/ml-mobileone", top1=top1, epochs=300)
    return Variant(name=f"MobileOne-{name}", architecture=architecture, published=published)


SEARCH = "-search"
"""What the name of a network ends in that is trained for the scales of an optimizer, and not for itself."""


def _repopt(size: str, depths: tuple[int, ...], a: float, b: float, top1: float | None = None) -> tuple[Variant, ...]:
    """RepOpt-VGG, and the network whose training finds the scales of its optimizer."""
    plain = Architecture(depths, (a, a, a, b), block="RepOptVGGBlock")
    source = f"{REPOPT_PAPER}; accuracy: {REPOPT_REPOSITORY}"
    published = Published(source=source, top1=top1, epochs=120 if top1 is not None else None)
    name = f"RepOpt-VGG-{size}"
    search = replace(plain, block="LinearAdditionBlock")
    return Variant(name, plain, published), Variant(f"{name}{SEARCH}", search, Published(source=REPOPT_PAPER))


_OTHER_ROWS = (
    _in_the_shape_of("RepVGG-A0", "ACB", "ACBlock", AC_PAPER),
    _in_the_shape_of("RepVGG-A0", "DBB", "DiverseBranchBlock", DBB_PAPER),
    _mobileone("S0", (0.75, 1, 1, 2), copies=4, top1=71.4),
    _mobileone("S1", (1.5, 1.5, 2, 2.5), top1=75.9),
    _mobileone("S2", (1.5, 2, 2.5, 4), top1=77.4),
    _mobileone("S3", (2, 2.5, 3, 4), top1=78.1),
    _mobileone("S4", (3, 3.5, 3.5, 4), attention=(0, 0, 5, 1), top1=79.4),
    *_repopt("A0", A_DEPTHS, 0.75, 2.5),
    *_repopt("B1", B_DEPTHS, 2, 4, top1=78.62),
    *_repopt("B2", B_DEPTHS, 2.5, 5, top1=79.68),
    *_repopt("L1", D_DEPTHS, 2, 4, top1=79.82),
    *_repopt("L2", D_DEPTHS, 2.5, 5, top1=80.47),
)

VARIANTS: dict[str, Variant] = {row.name: row for row in (*_ROWS, *_QA_ROWS, *_OTHER_ROWS)}
"""Every network by its name. Rows of your own may be added."""


def list_variants() -> list[str]:
    """Names of all networks, smallest family first.

    Example:
        >>> list_variants()[0]
        'RepVGG-A0'
    """
    return list(VARIANTS)


def get_variant(name: str) -> Variant:
    """The network called `name`, in capitals or not.

    Raises:
        UnknownNameError: if there is none; the message names the nearest ones.
    """
    variant = known_variant(name)
    if variant is None:
        raise UnknownNameError("variant", name, VARIANTS)
    return variant


def known_variant(name: str) -> Variant | None:
    """The network called `name`, in capitals or not; None if there is none."""
    folded = name.casefold()
    return next((row for known, row in VARIANTS.items() if known.casefold() == folded), None)


def find_variant(architecture: Architecture) -> Variant | None:
    """The named network with this architecture, or None; an `adaptation`, which changes no weight, does not count."""
    plain = replace(architecture, adaptation=PUBLISHED)
    return next((variant for variant in VARIANTS.values() if variant.architecture == plain), None)


def as_deployed(architecture: Architecture) -> Architecture:
    """What the weights of its deploy form show: the paper's block stands for every kind."""
    return replace(architecture, block=PAPERS_BLOCK, copies=1, auxiliary_heads=False, adaptation=PUBLISHED)


def as_trained(deployed: Architecture, variant_name: str | None) -> Architecture:
    """The architecture that a deploy form was trained as, as far as it can be told.

    Its convolutions are the same whatever its blocks were; only the name that came with the model can tell more.
    Without one, it is taken for the first network of the table that has such convolutions.

    Args:
        deployed: what the layers show; returned as it is where its blocks are known to be others than the paper's.
        variant_name: the variant in the model's metadata, if it has one.
    """
    if deployed.block != PAPERS_BLOCK:
        return deployed
    alike = [row for row in VARIANTS.values() if as_deployed(row.architecture) == as_deployed(deployed)]
    named = [row for row in alike if row.name == variant_name]
    if not alike:
        return deployed
    found = (named or alike)[0].architecture
    return replace(deployed, block=found.block, copies=found.copies)
