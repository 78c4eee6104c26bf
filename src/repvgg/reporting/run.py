"""`report`: facts are gathered, and a page and a model card are written of them."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from repvgg.base.errors import InputError
from repvgg.base.files import atomic_output, refuse_existing
from repvgg.base.progress import working
from repvgg.reporting.card import card
from repvgg.reporting.facts import Facts
from repvgg.reporting.gather import Contestant, Timing, assemble, classifying, load, timed, with_both_forms
from repvgg.reporting.images import Images, images_of_run, named_images
from repvgg.reporting.page import page
from repvgg.reporting.subject import Subject, find_subject, output_for
from repvgg.reporting.survey import Survey
from repvgg.runners import as_runner
from repvgg.runners.classifier import preprocessing_of
from repvgg.verification import VerificationReport


def report(
    network: Any,
    output: str | Path | None = None,
    *,
    data: str | Path | None = None,
    artifacts: Sequence[str | Path] = (),
    model_card: str | Path | None = None,
    speed: bool = True,
    force: bool = False,
    out: Console | None = None,
) -> Facts:
    """Writes one page about a network: a self-contained HTML file that needs no network to be read.

    It shows what the network is, how it learned, what it mixes up, its worst mistakes, both forms and how well they
    agree block by block, and every file of it with size, accuracy, agreement and speed. Of a run that was interrupted
    it says what there is, and what is missing.

    Args:
        network: a run's folder; a network's file; a `keras.Model`, or a `Runner`.
        output: the page; `report.html` in the run's folder, or the file's name with `.report.html`, if None.
        data: labelled images to measure with; those of the run if None. A network without a run has none of its own.
        artifacts: further files of the same network, such as an exported one, to compare with it.
        model_card: write a model card too, such as `README.md`: Markdown with the header that the Hugging Face hub
            reads.
        speed: measure how fast every file runs, which takes some seconds.
        force: replace files that are there.
        out: where to show how far it is; nowhere if None.

    Returns:
        What the page says, as plain data.

    Raises:
        FileError: if there is no such run, file or folder.
        OutputExistsError: if a file would be replaced and `force` is not set.
        InputError: if the network is not a classifier, or not one of these images' classes.

    Example:
        >>> facts = repvgg.report("runs/RepVGG-A0-flowers", artifacts=["flowers.onnx"])
        >>> facts.quality.top1, [(one.name, one.agreement) for one in facts.artifacts]
    """
    console = out or Console(quiet=True)
    others = tuple(Path(one) for one in artifacts)
    named = isinstance(network, str | Path)
    subject = find_subject(Path(network), others) if named else Subject(_name_of(network), None, others)
    place = output_for(network if named else None, output, in_run=subject.folder is not None)
    for path in (place, *([Path(model_card)] if model_card is not None else [])):
        refuse_existing(path, force=force)
    with working(console, "loading"):
        contestants, proof = _contestants(subject, network)
    facts = _facts(subject, contestants, proof, Path(data) if data is not None else None, console, speed=speed)
    write_page(facts, place)
    if model_card is not None:
        write_card(facts, Path(model_card))
    return facts


def write_page(facts: Facts, path: Path) -> None:
    """Writes the HTML file, whole or not at all."""
    with atomic_output(path) as temporary:
        temporary.write_text(page(facts), encoding="utf-8")


def write_card(facts: Facts, path: Path, **options: Any) -> None:
    """Writes the Markdown file, whole or not at all."""
    with atomic_output(path) as temporary:
        temporary.write_text(card(facts, **options), encoding="utf-8")


def _name_of(network: Any) -> str:
    return str(getattr(network, "name", "network"))


def _contestants(subject: Subject, network: Any) -> tuple[list[Contestant], VerificationReport | None]:
    found = load(subject.files)
    if not isinstance(network, str | Path):
        found = [Contestant(subject.name, as_runner(network)), *found]
    if subject.folder is None and found[0].problem is not None:
        raise InputError(found[0].problem)
    return with_both_forms(found)


def _facts(
    subject: Subject,
    contestants: list[Contestant],
    proof: VerificationReport | None,
    data: Path | None,
    console: Console,
    *,
    speed: bool,
) -> Facts:
    training = subject.training
    gaps: list[str] = []
    reference = next((one.runner for one in contestants if one.runner is not None), None)
    if reference is None:
        gaps.append("Everything about the network: there is none yet. Go on with the run: repvgg train ... --resume.")
        return assemble(subject.name, contestants, training=training, gaps=gaps)
    preprocessing = preprocessing_of(reference)
    checked = classifying(contestants, preprocessing)
    if checked[0].problem is not None and subject.folder is None:
        raise InputError(checked[0].problem)
    images: Images | str
    if data is not None:
        images = named_images(data, reference.metadata.class_names)
    elif subject.folder is not None and training is not None:
        images = images_of_run(subject.folder, training.settings)
    else:
        images = "Accuracy, confusion and mistakes: no labelled images were given; name some: --data FOLDER."
    found: Survey | None = None
    if isinstance(images, str):
        gaps.append(images)
    else:
        runners = {one.name: one.runner for one in checked if one.runner is not None}
        with working(console, "evaluating", len(images), unit="images") as work:
            found = images.survey(runners, preprocessing, work.advance)
    if proof is None:
        gaps.append("The error of each block: this file carries no verification, and no training form is at hand.")
    if training is not None and training.interrupted:
        gaps.append(
            f"The rest of the run: {len(training.history)} of {training.epochs} epochs are done. The same command with "
            "--resume goes on."
        )
    timing: Timing | None = None
    if speed:
        with working(console, "timing") if not console.quiet else nullcontext():
            timing = timed(checked)
    return assemble(subject.name, checked, training=training, found=found, proof=proof, timing=timing, gaps=gaps)
