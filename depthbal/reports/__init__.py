"""What a run says about itself: results read back, compared and written for people."""

from depthbal.reports.comparing import compare
from depthbal.reports.comparison import Comparison
from depthbal.reports.loading import load_results
from depthbal.reports.results import Example, RunResult
from depthbal.reports.writing import write_report

__all__ = ["Comparison", "Example", "RunResult", "compare", "load_results", "write_report"]
