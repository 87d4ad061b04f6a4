"""What a run says about itself: results read back, compared and written for people."""

from depthbal.reports.comparison import Comparison
from depthbal.reports.loading import load_results
from depthbal.reports.results import Example, RunResult

__all__ = ["Comparison", "Example", "RunResult", "load_results"]
