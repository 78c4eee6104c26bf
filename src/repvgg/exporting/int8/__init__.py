"""INT8 that keeps its accuracy: the search for a scheme that is good enough, and the report of what was tried."""

from repvgg.exporting.int8.artifact import Int8Options, Int8Result, write_int8
from repvgg.exporting.int8.report import Attempt, Int8Report
from repvgg.exporting.int8.search import find_int8

__all__ = ["Attempt", "Int8Options", "Int8Report", "Int8Result", "find_int8", "write_int8"]
