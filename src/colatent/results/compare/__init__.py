"""Comparing two result trees: what differs, since which stage, and by how much."""

from colatent.results.compare.trees import (
    Comparison,
    Verdict,
    compare_trees,
)
from colatent.results.compare.wording import report_lines

__all__ = ["Comparison", "Verdict", "compare_trees", "report_lines"]
