"""From a Keras model back to the architecture it was built from, in either form."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from repvgg.base.errors import InputError
from repvgg.base.metadata import Form
from repvgg.blocks.layers import AuxiliaryClassifier, ReparameterizableBlock, SinglePath
from repvgg.core.architecture import PAPERS_BLOCK, Adaptation, Architecture, BlockSpec
from repvgg.models.metadata import get_metadata
from repvgg.models.variants import as_trained

_BLOCK = re.compile(r"stage0|stage([1-4])_block(\d+)")


@dataclass(frozen=True)
class Recovered:
    """What a model built by this package is, and its parts by block name.

    Attributes:
        units: every block from the stem on, in order: a `ReparameterizableBlock`, or a `SinglePath` in deploy form.
        classifier: its last Dense layer, or None for a feature extractor.
        num_classes: outputs of the classifier, or None.
        auxiliary: auxiliary classifiers by output name.
    """

    architecture: Architecture
    form: Form
    in_channels: int
    num_classes: int | None
    units: dict[str, Any]
    classifier: Any
    auxiliary: dict[str, Any]


def recover(model: Any) -> Recovered:
    """Reads the architecture from a model of `repvgg.RepVGG`, `create_model`, `RepVGGBackbone` or `reparameterize`.

    Raises:
        InputError: if the model was put together otherwise.
    """
    layers = {layer.name: layer for layer in model.layers}
    units: dict[str, Any] = {}
    for name, layer in layers.items():
        if not _BLOCK.fullmatch(name):
            continue
        unit = layer if isinstance(layer, ReparameterizableBlock) else SinglePath.find(name, layers)
        if unit is not None:
            units[name] = unit
    depths = tuple(sum(name.startswith(f"stage{stage}_block") for name in units) for stage in range(1, 5))
    names = ["stage0"] + [f"stage{stage}_block{i}" for stage, depth in enumerate(depths, 1) for i in range(depth)]
    if sorted(names) != sorted(units) or 0 in depths:
        raise InputError(
            f"'{model.name}' is not a RepVGG network built by this package: its blocks are not named stage0, "
            "stage1_block0 and so on. Only such a network has an architecture that can be told."
        )
    ordered = {name: units[name] for name in names}
    deployed = [isinstance(unit, SinglePath) or unit.deploy for unit in ordered.values()]
    if any(deployed) != all(deployed):
        raise InputError(f"'{model.name}' has blocks of both forms. Convert it as a whole.")
    auxiliary = {name: layer for name, layer in layers.items() if isinstance(layer, AuxiliaryClassifier)}
    classifier = layers.get("classifier")
    seen = _specs(ordered)
    architecture = Architecture.of_blocks(
        seen,
        block=_kind(ordered["stage0"]),
        auxiliary_heads=bool(auxiliary),
        adaptation=_adaptation(ordered, auxiliary),
    )
    if isinstance(ordered["stage0"], SinglePath):
        architecture = as_trained(architecture, get_metadata(model).variant)
    in_channels = seen[0].in_channels
    for spec, found in zip(architecture.blocks(in_channels), seen, strict=True):
        if spec.filters != found.filters:
            raise InputError(
                f"'{found.name}' has {found.filters} filters, where a RepVGG with these stages has {spec.filters}."
            )
        if (spec.strides, spec.dilation) != (found.strides, found.dilation):
            raise InputError(
                f"'{found.name}' has stride {found.strides} and dilation {found.dilation}, where a RepVGG with this "
                f"stem and these stages has {spec.strides} and {spec.dilation}."
            )
    return Recovered(
        architecture=architecture,
        form="deploy" if all(deployed) else "training",
        in_channels=in_channels,
        num_classes=classifier.units if isinstance(classifier, keras.layers.Dense) else None,
        units=ordered,
        classifier=classifier,
        auxiliary=auxiliary,
    )


def _specs(units: Mapping[str, Any]) -> list[BlockSpec]:
    """What each block shows."""
    specs = []
    for name, unit in units.items():
        stage, index = (int(part or 0) for part in _BLOCK.fullmatch(name).groups())  # type: ignore[union-attr]
        layer = unit.convolution if isinstance(unit, SinglePath) else unit
        channels = layer.kernel.shape[2] * layer.groups if isinstance(unit, SinglePath) else unit.in_channels
        specs.append(
            BlockSpec(
                name,
                stage,
                index,
                int(channels),
                int(layer.filters),
                _strides(unit),
                int(layer.groups),
                unit.squeeze_excite,
                int(layer.kernel_size[0]),
                1 if isinstance(unit, SinglePath) else unit.copies,
                _dilation(unit),
            )
        )
    return specs


def _strides(unit: Any) -> int:
    return int(unit.convolution.strides[0] if isinstance(unit, SinglePath) else unit.strides)


def _dilation(unit: Any) -> int:
    return int(unit.convolution.dilation_rate[0] if isinstance(unit, SinglePath) else unit.dilation_rate)


def _adaptation(units: Mapping[str, Any], auxiliary: Mapping[str, Any]) -> Adaptation:
    """Strides and dilation as the stem and the first block of each stage show them; epsilon, where there is one."""
    stem_strides = stride = _strides(units["stage0"])
    dilated = [stage for stage in range(1, 5) if _strides(units[f"stage{stage}_block0"]) == 1]
    for _ in range(4 - len(dilated)):
        stride *= 2
    epsilons = {epsilon for unit in units.values() for epsilon in _epsilons(unit)}
    epsilons |= {head.conv.norm.epsilon for head in auxiliary.values()}
    if len(epsilons) > 1:
        raise InputError(
            f"The batch normalizations have different epsilons ({', '.join(map(str, sorted(epsilons)))}), and a RepVGG "
            "has one. Convert the model with repvgg.reparameterize (--deploy): the deploy form has none."
        )
    changes = Adaptation().changed(stem_strides=stem_strides, epsilon=next(iter(epsilons), None))
    if not dilated:
        return changes
    return changes.changed(output_stride=stride, dilate_first=_dilation(units[f"stage{dilated[0]}_block0"]) > 1)


def _epsilons(unit: Any) -> set[float]:
    if isinstance(unit, SinglePath) or unit.deploy:
        return set()
    scales = [parameter.path for parameter in unit.kind.parameters(unit.shape) if parameter.path.endswith(".gamma")]
    return {unit.variable(path.removesuffix("gamma") + "epsilon") for path in scales}


def _kind(unit: Any) -> str:
    return PAPERS_BLOCK if isinstance(unit, SinglePath) else unit.kind.name
