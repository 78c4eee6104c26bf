"""How good a network is on labelled images. Knows Runners and data, and no format."""

from repvgg.evaluation.report import CalibrationBin, ClassRow, EvaluationReport, Mistake
from repvgg.evaluation.run import evaluate

__all__ = ["CalibrationBin", "ClassRow", "EvaluationReport", "Mistake", "evaluate"]
