"""Ways to quantize, by name: what `--scheme` takes, and the fallback schedule."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from repvgg.base.errors import UnknownNameError
from repvgg.base.processor import LEVELS

Calibrator = Literal["minmax", "percentile", "entropy"]
Equalization = Literal["none", "weights", "noise"]
Rounding = Literal["nearest", "bias-corrected", "gptq"]

FALLBACK = "fallback"
"""What `--scheme` calls the fallback schedule."""

FORMER_NAMES: Mapping[str, str] = {"least-noise": "noise-optimal", "compensated": "gptq", "ladder": FALLBACK}
"""What schemes and their values were called in version 0.1, which stays valid."""


@dataclass(frozen=True)
class Scheme:
    """One way to turn a network into INT8.

    Attributes:
        per_channel: a grid of its own for the weights of each output channel; otherwise one for a layer.
        equalize: cross-layer equalization before anything else, by the ranges of weights, or noise-optimal.
        rounding: each weight to the nearest point; that, and the mean error of each channel taken out of its bias; or
            least-squares reconstruction of the weights and GPTQ rounding (`gptq.py`), and the biases corrected as well.
        calibrator: how the range of a tensor follows from what was seen in it. `minmax`: all of it. `percentile`:
            all but one in ten thousand values on each side. `entropy`: the range that loses least of the distribution.
        float_layers: how many of the most sensitive layers stay in float32.
        weight_levels: steps of the weights' grids from 0 to the largest: what the target's quantizer will use for the
            kind of processor that the file is made for. All rounding and fitting is done on these grids.
    """

    per_channel: bool = True
    equalize: Equalization = "none"
    rounding: Rounding = "nearest"
    calibrator: Calibrator = "minmax"
    float_layers: int = 0
    weight_levels: int = LEVELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "rounding", FORMER_NAMES.get(self.rounding, self.rounding))

    def describe(self) -> str:
        """The steps in words."""
        bits = "" if self.weight_levels == LEVELS else " of 7 bits"
        steps = [f"{'per-channel' if self.per_channel else 'per-tensor'} weights{bits}", f"{self.calibrator} ranges"]
        steps += (
            []
            if self.equalize == "none"
            else ["noise-optimal equalization" if self.equalize == "noise" else "equalization by weights"]
        )
        steps += (
            [] if self.rounding == "nearest" else [f"{'GPTQ' if self.rounding == 'gptq' else self.rounding} rounding"]
        )
        if self.float_layers:
            steps.append(f"{self.float_layers} {'layer' if self.float_layers == 1 else 'layers'} in float32")
        return ", ".join(steps)


DEFAULT = Scheme(equalize="noise", rounding="gptq")

SCHEMES: Mapping[str, Scheme] = {
    "naive": Scheme(per_channel=False),
    "per-channel": Scheme(),
    "percentile": Scheme(calibrator="percentile"),
    "entropy": Scheme(calibrator="entropy"),
    "bias-corrected": Scheme(rounding="bias-corrected"),
    "equalized": Scheme(equalize="weights"),
    "noise-optimal": Scheme(equalize="noise"),
    "gptq": Scheme(rounding="gptq"),
    "default": DEFAULT,
    "per-tensor": replace(DEFAULT, per_channel=False),
    "default-percentile": replace(DEFAULT, calibrator="percentile"),
    "default-float-1": replace(DEFAULT, float_layers=1),
    "default-float-2": replace(DEFAULT, float_layers=2),
    "default-float-4": replace(DEFAULT, float_layers=4),
}
"""Each of the first eight has one step beside per-channel weights; the default has those that proved best together."""

FALLBACK_STEPS: Mapping[str, Callable[[Scheme], Scheme]] = {
    "per-channel weights": lambda scheme: replace(scheme, per_channel=True),
    "percentile ranges": lambda scheme: replace(scheme, calibrator="percentile"),
    "entropy ranges": lambda scheme: replace(scheme, calibrator="entropy"),
    "bias correction": lambda scheme: replace(scheme, rounding="bias-corrected"),
    "equalization by weights": lambda scheme: replace(scheme, equalize="weights"),
    "noise-optimal equalization": lambda scheme: replace(scheme, equalize="noise"),
    "noise-optimal equalization alone": lambda scheme: Scheme(equalize="noise", weight_levels=scheme.weight_levels),
    "GPTQ rounding": lambda scheme: replace(scheme, rounding="gptq"),
    "1 layer in float32": lambda scheme: replace(scheme, float_layers=1),
    "2 layers in float32": lambda scheme: replace(scheme, float_layers=2),
    "4 layers in float32": lambda scheme: replace(scheme, float_layers=4),
}
"""The fallback schedule: what is tried, in this order, each on top of what has helped so far; "alone" is without it."""


def get_scheme(name: str) -> Scheme:
    """The scheme of that name, or of that former name.

    Raises:
        UnknownNameError: if there is none.
    """
    name = FORMER_NAMES.get(name, name)
    if name not in SCHEMES:
        raise UnknownNameError("INT8 scheme", name, SCHEMES)
    return SCHEMES[name]
