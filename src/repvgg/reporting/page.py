"""Facts as one HTML page that needs nothing beside it."""

from importlib.metadata import version
from typing import Any

from repvgg.reporting.charts import Chart, curves, log_share
from repvgg.reporting.facts import Artifact, Facts, Training
from repvgg.reporting.templating import environment
from repvgg.reporting.views import block_rows, class_rows, confusions, matrix, setting_rows, thumbnail

LOUDEST = 80.0
"""Decibels at which a bar of INT8 ends: beyond them nothing is lost."""


def page(facts: Facts) -> str:
    """The HTML text."""
    template = environment().get_template("report.html.j2")
    quality = facts.quality
    return template.render(
        facts=facts,
        shipped=shipped(facts),
        charts=_charts(facts.training),
        blocks=list(block_rows(facts.architecture, facts.cost)) if facts.architecture and facts.cost else [],
        classes=class_rows(quality) if quality else [],
        matrix=matrix(quality) if quality else None,
        confusions=confusions(quality) if quality else [],
        mistakes=[(one, thumbnail(one)) for one in quality.mistakes] if quality else [],
        errors=_errors(facts),
        settings=setting_rows(facts.training) if facts.training else [],
        command=command_of(facts.training),
        slowest=max((one.speed.milliseconds_per_image.median for one in facts.artifacts if one.speed), default=0.0),
        limit_share=log_share(facts.proof.rtol, facts.proof.rtol) if facts.proof else None,
        loudest=LOUDEST,
        own_version=version("repvgg"),
    )


def shipped(facts: Facts) -> Artifact | None:
    """The file that one would use: the plain stack in Keras, or whatever can be run."""
    running = [one for one in facts.artifacts if one.problem is None and one.size is not None]
    plain = [one for one in running if one.name.endswith(".keras") and one.metadata and one.metadata.form == "deploy"]
    return next(iter(plain or running), None)


def command_of(training: Training | None) -> str | None:
    """How to start such a run again, if it was started by a command."""
    if training is None or not training.command.startswith("repvgg train "):
        return None
    return training.command


def _charts(training: Training | None) -> list[Chart]:
    if training is None or not training.history:
        return []
    best = training.best["epoch"] if training.best is not None else None
    return [
        curves(training.history, "accuracy", "accuracy, %", 100, best),
        curves(training.history, "cross_entropy", "cross entropy, nats", 1, best),
    ]


def _errors(facts: Facts) -> list[dict[str, Any]]:
    """Each block's error with the length of its bar, and the whole network's."""
    proof = facts.proof
    if proof is None:
        return []
    found = [(row.name, row.relative_error) for row in proof.blocks]
    found.append(("whole network", proof.max_relative_error))
    return [
        {"name": name, "error": error, "share": log_share(error, proof.rtol), "good": error <= proof.rtol}
        for name, error in found
    ]
