"""The part of a state dict that is a RepVGG: what its names begin with, and what stands beside it."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from repvgg.base.errors import CheckpointError
from repvgg.base.words import counted
from repvgg.checkpoints.dialects import DIALECTS, detect_dialect
from repvgg.checkpoints.dialects.dialect import Dialect
from repvgg.checkpoints.dialects.mmpretrain import MMPRETRAIN
from repvgg.checkpoints.errors import shown

_OPENMMLAB = "backbone."
"""OpenMMLab's names begin so. Without it, they are those of a backbone that was saved alone, or of a detector's."""


@dataclass(frozen=True)
class Part:
    """A RepVGG among the tensors of a file.

    Attributes:
        dialect: whose names it has.
        prefix: what is taken off them.
        names: its names in the file -> the same as the dialect spells them.
        left: what stands beside it, by name, with the number of tensors.
    """

    dialect: Dialect
    prefix: str
    names: Mapping[str, str]
    left: Mapping[str, int]


def find_part(names: Collection[str], prefix: str | None = None) -> Part:
    """The network among the tensors called `names`.

    Without `prefix` all of them must belong to it, whatever they begin with in common: `model.` of Lightning, `net.`.

    Args:
        prefix: takes what begins so, and leaves the rest, such as `backbone.` of a detector.

    Raises:
        CheckpointError: if there is none, or it cannot be told which; the message says which prefixes would do.
    """
    known = _known_prefixes(names)
    if prefix is not None:
        prefix = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
        if not any(prefix == candidate for candidate in known):
            raise CheckpointError(f"No RepVGG is in it under '{shown(prefix)}'. {_advice(names, known)}")
        return _part(names, prefix)
    if not known:
        detect_dialect(names)
    networks = _networks(known)
    if len(networks) > 1:
        raise CheckpointError(f"It holds more than one RepVGG. {_advice(names, known)}")
    spellings = networks[0]
    for candidate in spellings:
        part = _part(names, candidate)
        if not part.left and not (len(spellings) > 1 and _strangers(part)):
            return part
    raise CheckpointError(f"It holds more than a RepVGG. {_advice(names, known)}")


def _known_prefixes(names: Collection[str]) -> dict[str, set[str]]:
    """Everything that names of blocks begin with, and these names."""
    found: dict[str, set[str]] = {}
    block = _any_block()
    for name in names:
        match = block.search(name)
        if match is None:
            continue
        prefix = name[: match.start()]
        found.setdefault(prefix, set()).add(name)
        shorter = prefix.removesuffix(_OPENMMLAB)
        if shorter != prefix and MMPRETRAIN.knows_block(name[len(shorter) :]):
            found.setdefault(shorter, set()).add(name)
    return found


def _names_of_blocks(dialect: Dialect) -> str:
    """A pattern of the names of tensors in blocks, without what OpenMMLab puts before all of them."""

    def any_of(texts: Iterable[str]) -> str:
        return "|".join(re.escape(text) for text in texts)

    stages = (run.removeprefix(_OPENMMLAB) for runs in dialect.stages for run in runs)
    stem = re.escape(dialect.stem.removeprefix(_OPENMMLAB))
    return rf"(?:{stem}|(?:{any_of(stages)})\d{{1,4}}\.)(?:{any_of(dialect.parts.values())})\.\w+"


def _any_block() -> re.Pattern[str]:
    """One search for each name, however long it is and whatever it begins with."""
    return re.compile(rf"(?:^|(?<=\.))(?:{'|'.join(map(_names_of_blocks, DIALECTS.values()))})$")


def _networks(known: Mapping[str, set[str]]) -> list[list[str]]:
    """Prefixes by the network they lead to, the shortest first: OpenMMLab's is told with and without `backbone.`."""
    networks: dict[frozenset[str], list[str]] = {}
    for prefix in sorted(known, key=len):
        networks.setdefault(frozenset(known[prefix]), []).append(prefix)
    return list(networks.values())


def _part(names: Collection[str], prefix: str) -> Part:
    inside = {name: name.removeprefix(prefix) for name in names if name.startswith(prefix)}
    if not any(dialect.knows_block(rest) for rest in inside.values() for dialect in DIALECTS.values()):
        inside = {name: _OPENMMLAB + rest for name, rest in inside.items()}
    left: dict[str, int] = {}
    for name in names:
        if name not in inside:
            beside = _beside(name, prefix)
            left[beside] = left.get(beside, 0) + 1
    return Part(detect_dialect(list(inside.values())), prefix, inside, left)


def _strangers(part: Part) -> bool:
    """Whether some of its names are not the dialect's."""
    spelled = list(part.names.values())
    return len(part.dialect.to_canonical(spelled)) < len(spelled)


def _beside(name: str, prefix: str) -> str:
    """The part of a model that the tensor called `name` is of: `neck`, or `model.neck` beside `model.backbone.`."""
    steps, ours = name.split("."), prefix.split(".")
    common = 0
    while common < min(len(steps), len(ours)) - 1 and steps[common] == ours[common]:
        common += 1
    return ".".join(steps[: common + 1])


def _advice(names: Collection[str], known: Mapping[str, set[str]]) -> str:
    offers = []
    for spellings in _networks(known):
        prefix = spellings[-1]
        part = _part(names, prefix)
        rest = f", and leaves {listed(part.left)}" if part.left else ""
        offers.append(
            f"prefix='{shown(prefix)}' (--prefix {shown(prefix)}) takes {counted(len(part.names), 'tensor')}{rest}"
        )
    return f"{'; '.join(offers)}." if offers else "None is in it under any other prefix."


def listed(left: Mapping[str, int]) -> str:
    """What stands beside a network, for a message."""
    texts = [f"{shown(name)} ({count} tensor{'s' if count > 1 else ''})" for name, count in left.items()]
    return ", ".join(texts[:8]) + (f" and {len(texts) - 8} more" if len(texts) > 8 else "")
