"""Proving that two networks give the same answers. Knows Runners only."""

from repvgg.verification.compare import Difference, difference, difference_of_all
from repvgg.verification.report import BlockRow, VerificationReport
from repvgg.verification.verify import verify

__all__ = ["BlockRow", "Difference", "VerificationReport", "difference", "difference_of_all", "verify"]
