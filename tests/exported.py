"""What the tests of exporting share: small networks of every kind, and how they are written."""

from functools import cache
from pathlib import Path
from typing import Any

import repvgg
from helpers import trained_like
from repvgg.exporting import Export, export
from repvgg.targets import TARGETS

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"override_groups_map": {2: 2, 3: 4}},
    "attention before": {"squeeze_excite": repvgg.SqueezeExcite("before_activation", 4)},
    "plus": {"squeeze_excite": repvgg.SqueezeExcite("after_activation", 4), "auxiliary_heads": True},
    "one channel": {"input_shape": (None, None, 1)},
    "fixed size": {"input_shape": (40, 50, 3)},
}

TOLERANCES = {
    # Another runtime adds up in another order; some 80 roundings of float32.
    "float32": 1e-5,
    # Each weight is off by up to 4.9e-4 of itself, and 7 layers of few channels average little.
    "float16": 3e-3,
}

OPENED = [name for name, target in TARGETS.items() if not target.machine_code]
"""What `load_runner` opens; machine code has tests of its own."""

PAIRS = [(name, precision) for name in OPENED for precision in TARGETS[name].precisions if precision in TOLERANCES]
"""Integer precisions have their own tests."""

ADAPTING = [name for name in OPENED if TARGETS[name].adapts]

GENERAL = [name for name in ADAPTING if name != "native"]
"""What writes other layers than those of a plain network."""

CLASSES = ("ant", 'a "bee" & <more>', "käfer")


def small(**settings: Any) -> Any:
    """A network of 6 blocks in training form, with preprocessing that shows if it is forgotten."""
    model = trained_like(repvgg.RepVGG([1, 1, 2, 1], [0.25] * 4, **{"num_classes": 3, **settings}))
    channels = model.inputs[0].shape[-1]
    preprocessing = repvgg.Preprocessing(
        crop=64, resize=70, mean=(0.2, 0.5, 0.7)[:channels], std=(0.2, 0.5, 0.35)[:channels]
    )
    repvgg.set_metadata(model, class_names=CLASSES, preprocessing=preprocessing, source="a test")
    return model


@cache
def deployed(network: str) -> Any:
    """One of `NETWORKS` in deploy form; shared, so not to be changed."""
    return repvgg.reparameterize(small(**NETWORKS[network]))


def write(model: Any, folder: Path, name: str, precision: str = "float32", **settings: Any) -> Export:
    """Exports to 'model' in `folder`, with the ending of the target."""
    return export(model, folder / f"model{TARGETS[name].suffix}", name, precision, **settings)
