"""Comparing two trees of results: what differs, since which stage, and by how much."""

from colatent.results.compare.differences import Difference, compare_contents
from colatent.results.compare.trees import Comparison, Verdict, compare_trees, report_lines

__all__ = ["Comparison", "Difference", "Verdict", "compare_contents", "compare_trees", "report_lines"]
