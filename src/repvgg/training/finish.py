"""The end of a run: convert the best network, compare both forms on every validation image, draw, and tell."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from repvgg.base.errors import VerificationError
from repvgg.base.metadata import Preprocessing
from repvgg.base.progress import working
from repvgg.base.run_folder import BEST, DEPLOYED, PICTURE, README, REPORT, RunFolder
from repvgg.conversion import reparameterize
from repvgg.models.full_precision import in_full_precision
from repvgg.models.metadata import set_metadata
from repvgg.models.saving import save_model
from repvgg.pipeline import FolderSource, evaluation_batches
from repvgg.reporting.gather import Contestant, assemble, timed
from repvgg.reporting.run import write_card, write_page
from repvgg.reporting.subject import read_training
from repvgg.reporting.survey import Survey, numbered, survey
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner
from repvgg.training.inputs import Source
from repvgg.training.picture import draw_training
from repvgg.training.state import Progress
from repvgg.verification import VerificationReport, verify

RTOL = 1e-4
"""Relative difference of the two forms' logits, as `repvgg.verify` allows it by default."""

BATCH = 64
SHOWN_MISTAKES = 8
ROUNDS = 3
"""Turns in which speed is measured: a run's end should not be waited for."""


@dataclass(frozen=True)
class Outcome:
    """Both forms of the best network on the validation images.

    Attributes:
        images: how many there are.
        top1, top5: shares, 0 to 1, of the training form.
        deployed_top1: top-1 of the plain stack.
        same_class: images that both forms put into the same class.
        relative_difference: the largest difference of the logits over the largest logit.
        best_epoch: the epoch the network is of.
    """

    images: int
    top1: float
    top5: float
    deployed_top1: float
    same_class: int
    relative_difference: float
    best_epoch: int


def finish(
    network: Any, validation: Source, folder: RunFolder, progress: Progress, console: Console, *, report: bool = True
) -> tuple[Any, Outcome]:
    """Writes the deploy form, the picture, the folder's README and the report; gives the deploy form and how both did.

    Args:
        report: write the report.

    Raises:
        VerificationError: if the two forms differ; nothing of the deploy form is kept.
    """
    with working(console, "converting"):
        deployed = reparameterize(network)
        trained = in_full_precision(network)
        proof = verify(trained, deployed, rtol=RTOL)
    runners = {BEST: KerasRunner(trained), DEPLOYED: KerasRunner(deployed)}
    with working(console, "comparing", len(validation), unit="images") as work:
        comparison = compare(
            runners[BEST], runners[DEPLOYED], validation, progress.best_epoch or 0, advance=work.advance
        )
    outcome = comparison.outcome
    if not proof.passed or outcome.relative_difference > RTOL:
        raise VerificationError(
            f"{proof.summary()} On the validation images the logits differ by "
            f"{outcome.relative_difference:.1e} (limit {RTOL:.0e}). The trained network is kept in "
            f"'{folder.path}', and the deploy form is not."
        )
    set_metadata(deployed, verification={**proof.to_dict(), "validation": asdict(outcome)})
    with working(console, "saving and drawing"):
        save_model(deployed, folder / DEPLOYED, force=True)
        comparison.draw(folder, progress)
        tell(folder, runners, comparison.found, proof, report=report)
    console.print(_table(network, deployed, outcome))
    console.print(where_to_start(folder, report=report), soft_wrap=True)
    return deployed, outcome


def tell(
    folder: RunFolder, runners: Mapping[str, Runner], found: Survey, proof: VerificationReport, *, report: bool
) -> None:
    """Writes the folder's README, and the report, which says how fast everything is as well.

    Args:
        runners: by the names of their files in the folder, or other names where they have none there.
    """
    contestants = [
        Contestant(name, runner, folder / name if (folder / name).exists() else None)
        for name, runner in runners.items()
    ]
    facts = assemble(
        folder.path.resolve().name,
        contestants,
        training=read_training(folder),
        found=found,
        proof=proof,
        timing=timed(contestants, ROUNDS) if report else None,
    )
    write_card(facts, folder / README)
    if report:
        write_page(facts, folder / REPORT)


def where_to_start(folder: RunFolder, *, report: bool) -> str:
    """The last line of a run."""
    return f"Everything is in [bold]{folder.path}/[/] (start with {REPORT if report else README} and {PICTURE})."


@dataclass(frozen=True)
class Comparison:
    """Two forms on the validation images: how they did, and what the first of them mixes up."""

    outcome: Outcome
    found: Survey

    def draw(self, folder: RunFolder, progress: Progress) -> None:
        """Writes the run's picture."""
        first, *_ = self.found.answers.values()
        draw_training(
            folder / PICTURE,
            progress.history,
            first.tally.confusion,
            self.found.class_names,
            self.found.mistakes[:SHOWN_MISTAKES],
            self.outcome.top1,
        )


def look_at(
    runners: Mapping[str, Runner], validation: Source, *, advance: Callable[[int], None] | None = None
) -> Survey:
    """Runs all on every validation image, prepared as the first one's metadata say.

    Args:
        advance: is called with the number of images of each batch.
    """
    metadata = next(iter(runners.values())).metadata
    preprocessing = metadata.preprocessing or Preprocessing()
    files = [path.name for path in validation.images.paths] if isinstance(validation, FolderSource) else None
    batches = evaluation_batches(validation, preprocessing, batch_size=BATCH).as_numpy_iterator()
    return survey(
        runners,
        numbered(batches),
        metadata.class_names or (),
        preprocessing,
        data="the run's validation images",
        files=files,
        advance=advance,
    )


def compare(
    reference: Runner,
    candidate: Runner,
    validation: Source,
    epoch: int,
    *,
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Both on every validation image, under the names of the files they go to."""
    found = look_at({BEST: reference, DEPLOYED: candidate}, validation, advance=advance)
    first, second = found.answers.values()
    outcome = Outcome(
        images=found.images,
        top1=first.top1,
        top5=first.top5,
        deployed_top1=second.top1,
        same_class=second.same,
        relative_difference=second.difference.relative,
        best_epoch=epoch,
    )
    return Comparison(outcome, found)


def _table(network: Any, deployed: Any, outcome: Outcome) -> Table:
    table = Table("", "training form", "deploy form", title=f"The best network, of epoch {outcome.best_epoch}")
    table.add_row("parameters", f"{_trainable(network):,}", f"{deployed.count_params():,}")
    table.add_row("validation accuracy", f"{outcome.top1:.2%}", f"{outcome.deployed_top1:.2%}")
    table.add_row("largest relative difference", "", f"{outcome.relative_difference:.1e}")
    table.add_row("top-1 agreement", "", f"{outcome.same_class} of {outcome.images} images")
    return table


def _trainable(model: Any) -> int:
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))
