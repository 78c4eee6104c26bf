"""The end of a run: convert the best network, compare both forms on every validation image, draw, and tell."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from repvgg.base.errors import VerificationError
from repvgg.base.metadata import Preprocessing
from repvgg.base.progress import working
from repvgg.conversion import reparameterize
from repvgg.evaluation.metrics import Tally
from repvgg.models.full_precision import in_full_precision
from repvgg.models.metadata import get_metadata, set_metadata
from repvgg.models.saving import save_model
from repvgg.pipeline import evaluation_batches
from repvgg.runners.keras import KerasRunner
from repvgg.runners.runner import Runner
from repvgg.training.inputs import Source
from repvgg.training.picture import draw_training
from repvgg.training.run_folder import DEPLOYED, PICTURE, README, RunFolder
from repvgg.training.state import Progress
from repvgg.verification import Difference, difference, verify
from repvgg.verification.compare import top1_matches

RTOL = 1e-4
"""Relative difference of the two forms' logits, as `repvgg.verify` allows it by default."""

BATCH = 64
SHOWN_MISTAKES = 8


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
    network: Any, validation: Source, folder: RunFolder, progress: Progress, console: Console
) -> tuple[Any, Outcome]:
    """Writes the deploy form, the picture and the folder's README; gives the deploy form and how both forms did.

    Raises:
        VerificationError: if the two forms differ; nothing of the deploy form is kept.
    """
    with working(console, "converting"):
        deployed = reparameterize(network)
        trained = in_full_precision(network)
        report = verify(trained, deployed, rtol=RTOL)
    with working(console, "comparing", len(validation), unit="images") as work:
        comparison = compare(
            KerasRunner(trained), KerasRunner(deployed), validation, progress.best_epoch or 0, advance=work.advance
        )
    outcome = comparison.outcome
    if not report.passed or outcome.relative_difference > RTOL:
        raise VerificationError(
            f"{report.summary()} On the validation images the logits differ by "
            f"{outcome.relative_difference:.1e} (limit {RTOL:.0e}). The trained network is kept in "
            f"'{folder.path}', and the deploy form is not."
        )
    set_metadata(deployed, verification={**report.to_dict(), "validation": asdict(outcome)})
    with working(console, "saving and drawing"):
        save_model(deployed, folder / DEPLOYED, force=True)
        comparison.draw(folder, progress)
        folder.write_text(README, _readme(network, outcome, progress))
    console.print(_table(network, deployed, outcome))
    console.print(f"Everything is in [bold]{folder.path}/[/] (start with README.md and {PICTURE}).", soft_wrap=True)
    return deployed, outcome


Mistake = tuple[np.ndarray, str, str, float]
"""The image as the network got it, but in [0, 1]; true class, predicted class, probability of that."""


@dataclass(frozen=True)
class Comparison:
    """Two forms on the validation images: how they did, and what the first of them mixes up."""

    outcome: Outcome
    tally: Tally
    class_names: tuple[str, ...]
    mistakes: list[Mistake]

    def draw(self, folder: RunFolder, progress: Progress) -> None:
        """Writes the run's picture."""
        draw_training(
            folder / PICTURE,
            progress.history,
            self.tally.confusion,
            self.class_names,
            self.mistakes,
            self.outcome.top1,
        )


def compare(
    reference: Runner,
    candidate: Runner,
    validation: Source,
    epoch: int,
    *,
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Runs both on every validation image, prepared as the reference's metadata say.

    Args:
        advance: is called with the number of images of each batch.
    """
    metadata = reference.metadata
    preprocessing = metadata.preprocessing or Preprocessing()
    names = metadata.class_names or ()
    tally, second = Tally(len(names), SHOWN_MISTAKES), Tally(len(names), 0)
    found = Difference(0.0, 0.0)
    same, seen = 0, 0
    pictures: dict[int, np.ndarray] = {}
    for images, labels in evaluation_batches(validation, preprocessing, batch_size=BATCH).as_numpy_iterator():
        expected, received = reference(images), candidate(images)
        indices = np.arange(seen, seen + len(images))
        tally.add(expected, labels, indices)
        second.add(received, labels, indices)
        found = difference(expected, received).joined(found)
        same += top1_matches(expected, received)
        # Only the images of the worst mistakes so far are held.
        pictures.update(zip(indices.tolist(), images, strict=True))
        pictures = {index: pictures[index] for index, *_ in tally.worst()}
        seen += len(images)
        if advance is not None:
            advance(len(images))
    mean, std = np.asarray(preprocessing.mean), np.asarray(preprocessing.std)
    mistakes = [
        ((pictures[index] * std + mean).clip(0, 1), names[true], names[predicted], probability)
        for index, true, predicted, probability in tally.worst()
    ]
    outcome = Outcome(
        images=seen,
        top1=float(np.trace(tally.confusion)) / seen,
        top5=tally.in_top / seen,
        deployed_top1=float(np.trace(second.confusion)) / seen,
        same_class=same,
        relative_difference=found.relative,
        best_epoch=epoch,
    )
    return Comparison(outcome, tally, names, mistakes)


def _table(network: Any, deployed: Any, outcome: Outcome) -> Table:
    table = Table("", "training form", "deploy form", title=f"The best network, of epoch {outcome.best_epoch}")
    table.add_row("parameters", f"{_trainable(network):,}", f"{deployed.count_params():,}")
    table.add_row("validation accuracy", f"{outcome.top1:.2%}", f"{outcome.deployed_top1:.2%}")
    table.add_row("largest relative difference", "", f"{outcome.relative_difference:.1e}")
    table.add_row("same class", "", f"{outcome.same_class} of {outcome.images} images")
    return table


def _trainable(model: Any) -> int:
    return int(sum(np.prod(variable.shape) for variable in model.trainable_variables))


def _readme(network: Any, outcome: Outcome, progress: Progress) -> str:
    metadata = get_metadata(network)
    minutes = sum(row.get("seconds", 0.0) for row in progress.history) / 60
    lines = [
        f"# {metadata.variant or network.name}: {outcome.top1:.2%} on {outcome.images} validation images",
        "",
        f"{metadata.source}. {len(progress.history)} epochs in {minutes:.1f} minutes; the best was epoch "
        f"{outcome.best_epoch}. Classes: {', '.join(metadata.class_names or ())}.",
        "",
        "| file | what it is |",
        "|---|---|",
        f"| `best.keras` | the best network in training form, {_trainable(network):,} trainable parameters |",
        f"| `deploy.keras` | the same as a plain stack of convolutions: {outcome.deployed_top1:.2%}, the same class on "
        f"{outcome.same_class} of {outcome.images} images, logits within {outcome.relative_difference:.1e} |",
        "| `last.keras` | the network after the last step |",
        "| `training.png` | accuracy and loss by epoch, the confusion matrix, the worst mistakes |",
        "| `history.csv`, `tensorboard/` | figures of each epoch |",
        "| `run.json` | every setting, the command and the versions: what is needed to repeat the run |",
        "| `data.json` | the images, and what was left out |",
        "| `checkpoints/` | the state of the run; `--resume` goes on from it |",
        "",
        "    repvgg predict deploy.keras photos/",
        "    repvgg verify best.keras deploy.keras",
        "    repvgg export deploy.keras model.onnx",
        "",
    ]
    return "\n".join(lines)
