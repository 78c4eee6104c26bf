"""Facts as a model card: Markdown with the header that the Hugging Face hub reads."""

from collections.abc import Mapping
from pathlib import PurePath

from repvgg.reporting.facts import Facts, Training
from repvgg.reporting.page import command_of, shipped
from repvgg.reporting.templating import environment
from repvgg.reporting.views import setting_rows

UNKNOWN_LICENSE = "unknown"
"""The hub's own word; whoever owns the weights knows better."""


def card(
    facts: Facts,
    *,
    repository: str | None = None,
    timm_name: str | None = None,
    license_name: str = UNKNOWN_LICENSE,
    files: Mapping[str, str] | None = None,
) -> str:
    """The text of a README.md.

    Args:
        repository: where on the hub it goes, such as "user/name"; None for a folder.
        timm_name: what timm calls the network; None if it does not have it.
        license_name: of the weights, in the hub's words, such as "apache-2.0".
        files: names and what they are; those of the facts if None.
    """
    template = environment().get_template("card.md.j2")
    return template.render(
        facts=facts,
        shipped=shipped(facts),
        repository=repository,
        timm_name=timm_name,
        license_name=license_name,
        files=files or {one.name: "" for one in facts.artifacts if one.problem is None},
        # A command has the places of its owner's files in it, which are nobody's business on the hub.
        command=command_of(facts.training) if repository is None else None,
        settings=_settings(facts.training) if facts.training else [],
    )


def _settings(training: Training) -> list[tuple[str, str]]:
    """Every setting but the place of the images; of a file that the run began with, its name alone."""
    rows = ((name, PurePath(value).name if name == "weights" else value) for name, value in setting_rows(training))
    return [row for row in rows if row[0] != "data"]
