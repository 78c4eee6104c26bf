"""Ways to quantize, by name: what `--scheme` takes, and the ladder of remedies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from repvgg.base.errors import UnknownNameError
from repvgg.base.processor import LEVELS

Calibrator = Literal["minmax", "percentile", "entropy"]
Equalization = Literal["none", "weights", "noise"]
Rounding = Literal["nearest", "bias-corrected", "compensated"]


@dataclass(frozen=True)
class Scheme:
    """One way to turn a network into INT8.

    Attributes:
        per_channel: a grid of its own for the weights of each output channel; otherwise one for a layer.
        equalize: cross-layer equalization before anything else, by the ranges of weights, or for the least noise.
        rounding: each weight to the nearest point; that, and the mean error of each channel taken out of its bias; or
            weights rounded so that their errors cancel, and the biases corrected as well.
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

    def describe(self) -> str:
        """The steps in words."""
        bits = "" if self.weight_levels == LEVELS else " of 7 bits"
        steps = [f"{'per-channel' if self.per_channel else 'per-tensor'} weights{bits}", f"{self.calibrator} ranges"]
        steps += (
            []
            if self.equalize == "none"
            else ["equalized " + ("for the least noise" if self.equalize == "noise" else "by weights")]
        )
        steps += [] if self.rounding == "nearest" else [f"{self.rounding} rounding"]
        if self.float_layers:
            steps.append(f"{self.float_layers} {'layer' if self.float_layers == 1 else 'layers'} in float32")
        return ", ".join(steps)


DEFAULT = Scheme(equalize="noise", rounding="compensated")

SCHEMES: Mapping[str, Scheme] = {
    "naive": Scheme(per_channel=False),
    "per-channel": Scheme(),
    "percentile": Scheme(calibrator="percentile"),
    "entropy": Scheme(calibrator="entropy"),
    "bias-corrected": Scheme(rounding="bias-corrected"),
    "equalized": Scheme(equalize="weights"),
    "least-noise": Scheme(equalize="noise"),
    "compensated": Scheme(rounding="compensated"),
    "default": DEFAULT,
    "per-tensor": replace(DEFAULT, per_channel=False),
    "default-percentile": replace(DEFAULT, calibrator="percentile"),
    "default-float-1": replace(DEFAULT, float_layers=1),
    "default-float-2": replace(DEFAULT, float_layers=2),
    "default-float-4": replace(DEFAULT, float_layers=4),
}
"""Each of the first eight has one step beside per-channel weights; the default has those that proved best together."""

REMEDIES: Mapping[str, Callable[[Scheme], Scheme]] = {
    "per-channel weights": lambda scheme: replace(scheme, per_channel=True),
    "percentile ranges": lambda scheme: replace(scheme, calibrator="percentile"),
    "entropy ranges": lambda scheme: replace(scheme, calibrator="entropy"),
    "bias correction": lambda scheme: replace(scheme, rounding="bias-corrected"),
    "equalization by weights": lambda scheme: replace(scheme, equalize="weights"),
    "equalization for the least noise": lambda scheme: replace(scheme, equalize="noise"),
    "least noise alone": lambda scheme: Scheme(equalize="noise", weight_levels=scheme.weight_levels),
    "compensated rounding": lambda scheme: replace(scheme, rounding="compensated"),
    "1 layer in float32": lambda scheme: replace(scheme, float_layers=1),
    "2 layers in float32": lambda scheme: replace(scheme, float_layers=2),
    "4 layers in float32": lambda scheme: replace(scheme, float_layers=4),
}
"""What is tried, in this order, each on top of what has helped so far; "alone" is without the others."""


def get_scheme(name: str) -> Scheme:
    """The scheme of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in SCHEMES:
        raise UnknownNameError("INT8 scheme", name, SCHEMES)
    return SCHEMES[name]
