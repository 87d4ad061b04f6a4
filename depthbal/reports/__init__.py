"""What a run says about itself: results read back, compared and written for people."""

from depthbal.reports.comparison import Comparison
from depthbal.reports.results import Example, RunResult

__all__ = ["Comparison", "Example", "RunResult"]
