"""The names people import, and what importing them costs."""

import json

import pytest

import repvgg
from helpers import run_python

NAMES = [
    "Architecture",
    "EvaluationReport",
    "Metadata",
    "Preprocessing",
    "RECIPES",
    "Recipe",
    "RepOptimizer",
    "RepVGG",
    "RepVGGBackbone",
    "RepVGGBlock",
    "Runner",
    "SqueezeExcite",
    "TrainingResult",
    "VerificationReport",
    "benchmark",
    "compat",
    "compile",
    "create_model",
    "describe_checkpoint",
    "evaluate",
    "export",
    "get_metadata",
    "get_variant",
    "list_variants",
    "load_checkpoint",
    "load_model",
    "load_runner",
    "load_scales",
    "push",
    "reparameterize",
    "report",
    "save_checkpoint",
    "save_model",
    "search_scales",
    "set_metadata",
    "switch_to_deploy",
    "train",
    "verify",
    "verify_logits",
]


def test_the_public_names() -> None:
    assert sorted(repvgg.__all__) == NAMES
    assert dir(repvgg) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_leads_somewhere(name: str) -> None:
    assert getattr(repvgg, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'repvgg' has no attribute 'reparametrize'"):
        repvgg.reparametrize  # noqa: B018 - looking it up is the test


def test_facts_about_variants_import_no_framework() -> None:
    code = """
import json, sys
import repvgg
repvgg.list_variants(), repvgg.get_variant("RepVGG-A0").cost().deploy_macs
heavy = ("tensorflow", "jax", "torch", "keras", "onnxruntime", "matplotlib", "sklearn", "PIL")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert json.loads(run_python(code)) == []
