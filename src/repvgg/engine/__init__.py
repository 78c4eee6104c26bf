"""A compiler of plain convolutional networks to machine code for CPUs.

    plan -> choose -> schedule -> pack, memory, emit -> program -> machine -> workers -> Engine

A `Plan` is a network as data; `compile_plan` gives an `Engine` for the machine it runs on, `build` a `Program` for any
processor. Everything on the way can be printed.
"""

from repvgg.engine.compile import compile_plan
from repvgg.engine.engine import Engine
from repvgg.engine.isa import Isa, host_isa, isa_for
from repvgg.engine.plan import Convolution, Dense, GlobalAverage, Plan, SqueezeExcite
from repvgg.engine.program import ENTRY, Program, build
from repvgg.engine.tune import Tuned

__all__ = [
    "ENTRY",
    "Convolution",
    "Dense",
    "Engine",
    "GlobalAverage",
    "Isa",
    "Plan",
    "Program",
    "SqueezeExcite",
    "Tuned",
    "build",
    "compile_plan",
    "host_isa",
    "isa_for",
]
