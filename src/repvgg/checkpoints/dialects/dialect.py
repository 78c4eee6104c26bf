"""What a checkpoint dialect is: a table of names, and its reading in both directions."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from repvgg.base.errors import InputError
from repvgg.checkpoints.canonical import CLASSIFIER, HEADS, block_prefix, place_of
from repvgg.core.architecture import PAPERS_BLOCK


@dataclass(frozen=True)
class Dialect:
    """The names one library gives to the tensors of a RepVGG.

    Args:
        name: a key of `repvgg.checkpoints.dialects.DIALECTS`.
        origin: the library or repository.
        stem: what the names of the stem's tensors begin with.
        stages: the same for the blocks of stages 1 to 4, up to the block's number. A stage may be cut in two halves,
            each numbered from 0.
        parts: modules of a block by canonical name; one that is not here cannot be expressed.
        heads: the same for modules outside the blocks.
        blocks: the kinds of block whose training form it has; the deploy form is the same for all.
        family: the name that writers use for several dialects of one library, of which the network decides.
    """

    name: str
    origin: str
    stem: str
    stages: tuple[tuple[str, ...], ...]
    parts: Mapping[str, str]
    heads: Mapping[str, str]
    blocks: tuple[str, ...] = (PAPERS_BLOCK,)
    family: str | None = None

    def to_canonical(self, names: Collection[str]) -> dict[str, str]:
        """Canonical names by this dialect's names; names it does not know are left out."""
        found = {name: match for name in names if (match := self._pattern.fullmatch(name))}
        lengths = self._run_lengths(match["block"] for match in found.values() if match["block"])
        result: dict[str, str] = {}
        for name, match in found.items():
            if match["head"]:
                result[name] = f"{self._canonical_heads[match['head']]}.{match['leaf']}"
                continue
            stage, index = 0, 0
            if match["block"]:
                prefix, _, number = match["block"][:-1].rpartition(".")
                stage, run = self._runs[f"{prefix}."]
                index = int(number) + sum(lengths.get(before, 0) for before in self.stages[stage - 1][:run])
            result[name] = f"{block_prefix(stage, index)}{self._canonical_parts[match['part']]}.{match['leaf']}"
        return result

    def knows_block(self, name: str) -> bool:
        """Whether `name` is that of a tensor in a block."""
        match = self._pattern.fullmatch(name)
        return match is not None and match["part"] is not None

    def from_canonical(self, names: Collection[str]) -> dict[str, str]:
        """This dialect's names by canonical names.

        Raises:
            InputError: if the dialect has no name for one of them.
        """
        places = [place for name in names if (place := place_of(name))]
        depths = {stage: len({place.block for place in places if place.stage == stage}) for stage in range(1, 5)}
        result: dict[str, str] = {}
        unknown: list[str] = []
        for name in names:
            place = place_of(name)
            module, _, leaf = (place.inner if place else name).rpartition(".")
            table = self.parts if place else self.heads
            if module not in table:
                unknown.append(name)
                continue
            prefix = ""
            if place:
                prefix = self._block_prefix(place.stage, place.block, depths) if place.stage else self.stem
            result[name] = f"{prefix}{table[module]}.{leaf}"
        if unknown:
            raise InputError(_no_names_for(self, unknown))
        return result

    def _block_prefix(self, stage: int, index: int, depths: Mapping[int, int]) -> str:
        first_run, *second_run = self.stages[stage - 1]
        # A stage that is cut is cut in the middle, as RepVGGplus's third.
        half = depths[stage] // 2
        return f"{second_run[0]}{index - half}." if second_run and index >= half else f"{first_run}{index}."

    def _run_lengths(self, blocks: Iterable[str]) -> dict[str, int]:
        lengths: dict[str, int] = {}
        for block in set(blocks):
            run = f"{block[:-1].rpartition('.')[0]}."
            lengths[run] = lengths.get(run, 0) + 1
        return lengths

    @cached_property
    def _runs(self) -> dict[str, tuple[int, int]]:
        return {prefix: (stage, run) for stage, runs in enumerate(self.stages, 1) for run, prefix in enumerate(runs)}

    @cached_property
    def _canonical_parts(self) -> dict[str, str]:
        return {theirs: ours for ours, theirs in self.parts.items()}

    @cached_property
    def _canonical_heads(self) -> dict[str, str]:
        return {theirs: ours for ours, theirs in self.heads.items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        def any_of(texts: Iterable[str]) -> str:
            return "|".join(re.escape(text) for text in texts)

        return re.compile(
            rf"(?:(?:{re.escape(self.stem)}|(?P<block>(?:{any_of(self._runs)})\d{{1,4}}\.))"
            rf"(?P<part>{any_of(self.parts.values())})|(?P<head>{any_of(self.heads.values())}))\.(?P<leaf>\w+)"
        )


def _no_names_for(dialect: Dialect, unknown: list[str]) -> str:
    reasons = []
    if any(".post_se." in name for name in unknown):
        reasons.append("channel attention after the activation")
    if any(name.rpartition(".")[0] in HEADS and not name.startswith(CLASSIFIER) for name in unknown):
        reasons.append("auxiliary classifiers")
    if not reasons:
        few = ", ".join(unknown[:5])
        return f"{dialect.origin} has no such blocks, so its names cannot express {few} ({len(unknown)} in all)."
    what = " and ".join(reasons)
    return (
        f"{dialect.origin} has no such network as RepVGGplus, so its names cannot express {what}: "
        f"{', '.join(unknown)}. Save it with dialect='official'."
    )
