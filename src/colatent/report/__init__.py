"""The report: one self-contained page of figures, tables and where they come from."""

from colatent.report.page import write_report

__all__ = ["write_report"]
