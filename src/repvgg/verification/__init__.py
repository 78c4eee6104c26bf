"""Proving that two networks give the same answers. Knows Runners only."""

from repvgg.verification.compare import Difference, difference, differences, worst
from repvgg.verification.report import BlockRow, VerificationReport
from repvgg.verification.run import TOLERANCES, verify, verify_logits

__all__ = [
    "TOLERANCES",
    "BlockRow",
    "Difference",
    "VerificationReport",
    "difference",
    "differences",
    "verify",
    "verify_logits",
    "worst",
]
