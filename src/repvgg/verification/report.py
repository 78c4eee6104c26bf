"""What a verification found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from repvgg.base.errors import FileError
from repvgg.base.words import counted


@dataclass(frozen=True)
class BlockRow:
    """One block's own error: both forms of it run on the same input, the one it gets in the reference network."""

    name: str
    relative_error: float
    absolute_error: float


@dataclass(frozen=True)
class VerificationReport:
    """How far a candidate is from its reference.

    Attributes:
        max_relative_error: the largest difference of the outputs over their largest reference value.
        max_absolute_error: the largest difference, in units of the output.
        top1_agreement: share of images, 0 to 1, that get the same class; None for outputs other than classes.
        rtol: the relative error up to which the candidate passes.
        image_shapes: (N, H, W, C) of the batches that were run.
        blocks: a row for each block that both sides can run alone.
    """

    reference: str
    candidate: str
    max_relative_error: float
    max_absolute_error: float
    top1_agreement: float | None
    rtol: float
    images: int
    image_shapes: tuple[tuple[int, ...], ...]
    blocks: tuple[BlockRow, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the relative errors of the outputs and of every block are within `rtol`.

        Never true for values that are not finite. Blocks count because a network can hide what is wrong in one of them,
        by attention that is nearly shut for instance, on the images at hand.
        """
        worst = self.worst_block
        return self.max_relative_error <= self.rtol and (worst is None or worst.relative_error <= self.rtol)

    @property
    def worst_block(self) -> BlockRow | None:
        """The block with the largest relative error of its own."""
        return max(self.blocks, key=lambda row: row.relative_error, default=None)

    def summary(self) -> str:
        """One sentence for a log or an error message."""
        verdict = "agree" if self.passed else "differ"
        text = (
            f"{self.reference} and {self.candidate} {verdict}: relative error {self.max_relative_error:.2e} "
            f"(limit {self.rtol:.0e}) on {counted(self.images, 'image')}"
        )
        worst = self.worst_block
        if not self.passed and worst is not None:
            text += f"; worst block: {worst.name} with {worst.relative_error:.2e} of its own"
        return text + "."

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "passed": self.passed}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VerificationReport":
        """What `to_dict` gave, as a model's metadata carry it.

        Raises:
            FileError: if it is not such a thing.
        """
        try:
            own = {field.name: values[field.name] for field in fields(cls)}
            own["image_shapes"] = tuple(tuple(shape) for shape in own["image_shapes"])
            return cls(**{**own, "blocks": tuple(BlockRow(**row) for row in own["blocks"])})
        except (KeyError, TypeError) as error:
            raise FileError(f"The verification that the model carries cannot be read: {error!r}.") from error
