"""Everything this package raises on purpose.

    RepVGGError
    ├── InputError                  the caller can mend it (command line: exit status 2)
    │   ├── UnknownNameError        a variant, block, target or option that does not exist
    │   ├── FileError               missing, unreadable, truncated or of an unknown kind
    │   │   ├── ImageError          a file that is not a readable image
    │   │   └── CheckpointError     a checkpoint that is damaged or does not fit
    │   │       └── UnsafeCheckpointError   a pickle that asks for more than tensors
    │   ├── OutputExistsError       an output that would be overwritten
    │   ├── MissingDependencyError  an optional package that is not installed
    │   └── ConversionError         a model that cannot be re-parameterized
    ├── VerificationError           two forms do not agree (command line: exit status 1)
    │   └── AccuracyError           an INT8 network that lost more than it was allowed to
    └── TrainingError               training came to an end before its time (command line: exit status 1)
        ├── TrainingDivergedError   the loss is not a number any more
        ├── LostProcessError        another process of the same training has gone
        └── InterruptedTrainingError    it was asked to stop, and its state is saved

    ProcessorWarning    an INT8 file that was made for other processors than this one (a UserWarning)

Each message says what happened, what was expected, and how to go on.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class RepVGGError(Exception):
    """The root of this package's errors."""


class InputError(RepVGGError, ValueError):
    """An argument, file or option the caller can mend."""


class UnknownNameError(InputError):
    """A name that is not in its table."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        folded = {known_name.casefold(): known_name for known_name in names}
        # 'A0' is more like 'DBB-A0' than like 'RepVGG-A0', which comes first in the table.
        typed = name.casefold()
        near = [known_name for match, known_name in folded.items() if len(typed) > 1 and typed in match][:3]
        near = near or [folded[match] for match in get_close_matches(typed, folded, n=3, cutoff=0.5)]
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        super().__init__(f"There is no {kind} called '{name}'. {hint}")


class FileError(InputError):
    """A file that is missing, unreadable, truncated or of an unknown kind."""


class ImageError(FileError):
    """A file that cannot be read as an image."""


class CheckpointError(FileError):
    """A checkpoint that is damaged, or does not fit the model."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint whose pickle names something other than tensors; nothing in it has run."""


class OutputExistsError(InputError, FileExistsError):
    """An output path that is already taken."""


class MissingDependencyError(InputError, ImportError):
    """An optional package that is needed here and is not installed."""


class ConversionError(InputError):
    """A model that cannot be turned into its single-path form."""


class VerificationError(RepVGGError):
    """Two forms of a network that should give the same answers and do not."""


class TrainingError(RepVGGError):
    """Training that came to an end before its time; what it had saved is there."""


class TrainingDivergedError(TrainingError):
    """A loss or weights that are not finite."""

    def __init__(self, step: int, loss: float) -> None:
        self.step = step
        super().__init__(
            f"Training diverged: at step {step} the loss is {loss}, or weights are not finite. The last good state is "
            "kept. Start anew with a lower learning rate (--learning-rate, a third of it), a longer warm-up "
            "(--warmup-epochs) or a limit on the gradients (--clip-norm 1); in float16, try mixed_bfloat16."
        )


class LostProcessError(TrainingError):
    """Another process of the same training has gone, and this one cannot go on without it."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"Another process of this training has gone; its own output says why. Start all of them again with "
            f"--resume; they go on from the last step saved. ({reason})"
        )


class InterruptedTrainingError(TrainingError):
    """Training that a signal asked to stop, after its state was saved."""

    def __init__(self, step: int, signal_number: int) -> None:
        self.step = step
        self.exit_status = 128 + signal_number
        super().__init__(
            f"Stopped at step {step}; its state is saved. The same command with --resume goes on from there."
        )


class AccuracyError(VerificationError):
    """An INT8 network that lost more than it was allowed to.

    Attributes:
        report: what was tried (`repvgg.quantization.Int8Report`).
    """

    def __init__(self, message: str, report: object) -> None:
        super().__init__(message)
        self.report = report


class ProcessorWarning(UserWarning):
    """An INT8 file that was made for other processors than this one."""
