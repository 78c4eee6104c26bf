"""Proving that two networks give the same answers. Knows Runners only."""

from repvgg.verification.compare import Difference, difference, differences, worst
from repvgg.verification.report import BlockRow, VerificationReport
from repvgg.verification.run import verify

__all__ = ["BlockRow", "Difference", "VerificationReport", "difference", "differences", "verify", "worst"]
