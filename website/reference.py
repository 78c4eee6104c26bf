"""Pages of the public Python names: a page a subject, each name by its docstring."""

import ast
from pathlib import Path

import repvgg

COMPAT = Path(repvgg.__file__).with_name("compat.py")

SUBJECTS = {
    "models": (
        "Models and blocks",
        "RepVGG",
        "create_model",
        "RepVGGBlock",
        "RepVGGBackbone",
        "load_model",
        "save_model",
    ),
    "training": (
        "Training",
        "train",
        "TrainingResult",
        "Recipe",
        "RECIPES",
        "RepOptimizer",
        "search_scales",
        "load_scales",
    ),
    "conversion": (
        "Conversion and proof",
        "reparameterize",
        "switch_to_deploy",
        "verify",
        "verify_logits",
        "VerificationReport",
    ),
    "artifacts": (
        "Export, running, speed",
        "export",
        "load_runner",
        "Runner",
        "compile",
        "evaluate",
        "EvaluationReport",
        "benchmark",
        "report",
    ),
    "checkpoints": ("Checkpoints and the hub", "load_checkpoint", "save_checkpoint", "describe_checkpoint", "push"),
    "facts": (
        "Variants and metadata",
        "list_variants",
        "get_variant",
        "Architecture",
        "SqueezeExcite",
        "Metadata",
        "Preprocessing",
        "get_metadata",
        "set_metadata",
    ),
}
"""The names of `repvgg` by subject; each stands in one."""


BLOCK = """## repvgg.RepVGGBlock

::: repvgg.blocks.repvgg.RepVGG
    options:
      show_root_heading: false
      show_root_toc_entry: false
      members: false

::: repvgg.blocks.base.ReparameterizableBlock
    options:
      show_root_heading: false
      show_root_toc_entry: false
      heading_level: 3
      members: [get_equivalent_kernel_bias, get_custom_L2, switch_to_deploy]
"""
"""The layer is made from its kind when it is asked for; what is written about it stands in two places."""


def python_pages() -> dict[str, str]:
    """The reference's pages by their place on the site.

    Raises:
        RuntimeError: if a public name is in no subject, or in two, or does not exist.
    """
    placed = sorted([name for _, *names in SUBJECTS.values() for name in names] + ["compat"])
    if placed != sorted(repvgg.__all__):
        raise RuntimeError(
            f"website/reference.py and repvgg.__all__ have to hold the same names, each once. They differ in "
            f"{sorted(set(placed) ^ set(repvgg.__all__)) or 'how often they name one'}."
        )
    pages = {
        f"reference/python/{place}.md": _page(title, [f"repvgg.{name}" for name in names])
        for place, (title, *names) in SUBJECTS.items()
    }
    pages["reference/python/compat.md"] = _compat()
    return pages


def _page(title: str, names: list[str]) -> str:
    parts = (BLOCK if name == "repvgg.RepVGGBlock" else f"::: {name}\n" for name in names)
    return f"# {title}\n\n" + "\n".join(parts)


def _compat() -> str:
    """The module by its docstring, its own functions by theirs, and what it makes or passes on in a table."""
    written = ("RepVGG", "get_RepVGG_func_by_name", "repvgg_model_convert")
    # Read, not imported: the module imports Keras and a framework.
    assigned = [
        statement.targets[0].id
        for statement in ast.parse(COMPAT.read_text(encoding="utf-8")).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    ]
    creators = ", ".join(f"`{name}`" for name in assigned if name.startswith("create_"))
    return "\n".join(
        [
            "# Other people's names",
            "",
            "::: repvgg.compat",
            "    options:",
            "      show_root_heading: false",
            "      show_root_toc_entry: false",
            f"      members: [{', '.join(written)}]",
            "",
            "## Networks and layers",
            "",
            "| name | |",
            "|---|---|",
            f"| {creators} | The network of that name: `repvgg.create_model` with `num_classes` and `deploy`. |",
            "| `RepVGGBlock`, `ConvBn` | The tutorial's layers; `repvgg.RepVGGBlock` is the real one. |",
            "| `func_dict` | The functions above by the names of their networks. |",
            "| `optional_groupwise_layers`, `g2_map`, `g4_map` | Which blocks have groups: every other one, 2 or 4. |",
            "",
        ]
    )
