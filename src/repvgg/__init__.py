"""Train a multi-branch RepVGG, turn it into a plain stack of 3x3 convolutions with the same answers, prove it, ship it.

Names are loaded when they are first used: importing this package imports no deep-learning framework.
"""

import contextlib
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import wrapt

from repvgg.base.errors import InputError
from repvgg.base.startup import set_environment

if TYPE_CHECKING:
    from repvgg import compat
    from repvgg.base.metadata import Metadata, Preprocessing
    from repvgg.benchmarking.run import benchmark
    from repvgg.blocks import RepVGGBlock
    from repvgg.checkpoints import describe_checkpoint, load_checkpoint, save_checkpoint
    from repvgg.checkpoints.scales import load_scales
    from repvgg.checkpoints.zoo import create_model
    from repvgg.conversion import reparameterize, switch_to_deploy
    from repvgg.core.architecture import Architecture, SqueezeExcite
    from repvgg.evaluation import EvaluationReport, evaluate
    from repvgg.exporting import export
    from repvgg.models.backbone import RepVGGBackbone
    from repvgg.models.metadata import get_metadata, set_metadata
    from repvgg.models.model import RepVGG
    from repvgg.models.saving import load_model, save_model
    from repvgg.models.variants import get_variant, list_variants
    from repvgg.publishing.run import push
    from repvgg.reporting.run import report
    from repvgg.runners import load_runner
    from repvgg.runners.runner import Runner
    from repvgg.targets.native.compiling import compile  # noqa: A004
    from repvgg.training.hyper_search import search_scales
    from repvgg.training.recipe import RECIPES, Recipe
    from repvgg.training.rep_optimizer import RepOptimizer
    from repvgg.training.run import TrainingResult, train
    from repvgg.verification import VerificationReport, verify, verify_logits

# Frameworks read this while they are imported, which every other module of this package may do.
set_environment()

__version__ = "0.2.0"

_HOMES = {
    "Architecture": "repvgg.core.architecture",
    "EvaluationReport": "repvgg.evaluation",
    "Metadata": "repvgg.base.metadata",
    "Preprocessing": "repvgg.base.metadata",
    "RepOptimizer": "repvgg.training.rep_optimizer",
    "RepVGG": "repvgg.models.model",
    "RepVGGBackbone": "repvgg.models.backbone",
    "RECIPES": "repvgg.training.recipe",
    "Recipe": "repvgg.training.recipe",
    "RepVGGBlock": "repvgg.blocks",
    "Runner": "repvgg.runners.runner",
    "SqueezeExcite": "repvgg.core.architecture",
    "TrainingResult": "repvgg.training.run",
    "VerificationReport": "repvgg.verification",
    "benchmark": "repvgg.benchmarking.run",
    "compile": "repvgg.targets.native.compiling",
    "create_model": "repvgg.checkpoints.zoo",
    "describe_checkpoint": "repvgg.checkpoints",
    "evaluate": "repvgg.evaluation",
    "export": "repvgg.exporting",
    "get_metadata": "repvgg.models.metadata",
    "get_variant": "repvgg.models.variants",
    "list_variants": "repvgg.models.variants",
    "load_checkpoint": "repvgg.checkpoints",
    "load_model": "repvgg.models.saving",
    "load_runner": "repvgg.runners",
    "load_scales": "repvgg.checkpoints.scales",
    "push": "repvgg.publishing.run",
    "reparameterize": "repvgg.conversion",
    "report": "repvgg.reporting.run",
    "save_checkpoint": "repvgg.checkpoints",
    "save_model": "repvgg.models.saving",
    "search_scales": "repvgg.training.hyper_search",
    "set_metadata": "repvgg.models.metadata",
    "switch_to_deploy": "repvgg.conversion",
    "train": "repvgg.training.run",
    "verify": "repvgg.verification",
    "verify_logits": "repvgg.verification",
}

__all__ = [
    "RECIPES",
    "Architecture",
    "EvaluationReport",
    "Metadata",
    "Preprocessing",
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


def __getattr__(name: str) -> Any:
    if name == "compat":
        return import_module("repvgg.compat")
    if name not in _HOMES:
        raise AttributeError(f"module 'repvgg' has no attribute '{name}'")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


_ROOMS = ("blocks", "models")
_OPTIMIZERS = "repvgg.training.rep_optimizer"
_OURS = (
    {f"repvgg.{room}" for room in _ROOMS}
    | {_OPTIMIZERS}
    | {
        module.name
        for room in _ROOMS
        for module in pkgutil.iter_modules([f"{path}/{room}" for path in __path__], f"repvgg.{room}.")
    }
)
"""What the classes of saved models come with. Any of these may itself be the first to import Keras."""

_loaded: set[str] = set()


def _register_classes(module: Any) -> None:
    """Lets Keras find the classes of saved models, which importing them does, at once or as soon as Keras is there.

    What is only half imported at that moment is waited for.
    """
    _loaded.add(module.__name__)
    if "keras" in _loaded and _loaded.issuperset(_OURS & set(sys.modules)):
        # On a backend that the blocks do not run on they say so when they are used, and not when Keras is imported.
        with contextlib.suppress(InputError):
            import_module("repvgg.blocks.tutorial")
            import_module("repvgg.models.backbone")
            import_module(_OPTIMIZERS)


for _name in ("keras", *_OURS):
    wrapt.register_post_import_hook(_register_classes, _name)
