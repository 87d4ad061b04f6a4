"""The report as one self-contained html page."""

from depthbal.reports.page.page import write_page

__all__ = ["write_page"]
