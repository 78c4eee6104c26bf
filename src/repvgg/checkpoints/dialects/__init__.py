"""The dialects, and telling them apart by names alone."""

from collections.abc import Collection
from typing import Final

from repvgg.base.errors import CheckpointError, UnknownNameError
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.dialects.mmpretrain import MMPRETRAIN
from repvgg.checkpoints.dialects.mobileone import MOBILEONE, TIMM_MOBILEONE
from repvgg.checkpoints.dialects.official import OFFICIAL
from repvgg.checkpoints.dialects.plus import PLUS
from repvgg.checkpoints.dialects.repopt import REPOPT
from repvgg.checkpoints.dialects.timm import TIMM, TIMM_FEATURES
from repvgg.checkpoints.errors import shown
from repvgg.core.architecture import Architecture

DIALECTS: Final[dict[str, Dialect]] = {
    dialect.name: dialect
    for dialect in (OFFICIAL, PLUS, TIMM, MMPRETRAIN, MOBILEONE, TIMM_MOBILEONE, TIMM_FEATURES, REPOPT)
}


def detect_dialect(names: Collection[str]) -> Dialect:
    """The dialect that knows most of `names`.

    Raises:
        CheckpointError: if none knows the tensors of any block.

    Example:
        >>> detect_dialect(["stem.conv_kxk.conv.weight", "head.fc.bias"]).name
        'timm'
    """
    known = {dialect.name: len(dialect.to_canonical(names)) for dialect in DIALECTS.values()}
    best = DIALECTS[max(known, key=lambda name: known[name])]
    # The name of a classifier alone says nothing: other networks have a 'head.fc' too.
    if not any(canonical.startswith("stage") for canonical in best.to_canonical(names).values()):
        first = ", ".join(f"'{shown(name)}'" for name in list(names)[:5])
        raise CheckpointError(
            f"Its tensors are not named as those of a RepVGG by any of {', '.join(DIALECTS)}. It begins with {first}. "
            "Is it the checkpoint of another network?"
        )
    return best


def dialect_to_write(name: str, architecture: Architecture) -> Dialect:
    """The dialect called `name`, or the one of its family that has such a network, as RepVGGplus among the official.

    Raises:
        UnknownNameError: if there is no such dialect.
    """
    if name not in DIALECTS:
        raise UnknownNameError("checkpoint dialect", name, DIALECTS)
    attention = architecture.squeeze_excite
    is_plus = architecture.auxiliary_heads or (attention is not None and attention.position == "after_activation")
    if name == OFFICIAL.name and is_plus:
        return PLUS
    family = [dialect for dialect in DIALECTS.values() if name in (dialect.name, dialect.family)]
    return next((dialect for dialect in family if architecture.block in dialect.blocks), DIALECTS[name])
