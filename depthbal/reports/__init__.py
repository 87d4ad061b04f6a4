"""What a run says about itself: results read back, compared and written for people."""

from depthbal.reports.comparing import compare
from depthbal.reports.report import Comparison
from depthbal.reports.results import Example, Result, load_results
from depthbal.reports.writing import write_report

__all__ = ["Comparison", "Example", "Result", "compare", "load_results", "write_report"]
