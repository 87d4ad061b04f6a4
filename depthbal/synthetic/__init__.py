"""Table 1 of the Balanced MSE paper: regression problems whose answer is known."""

from depthbal.synthetic.benchmark import TABLE_1, Cell, run_benchmark, summary
from depthbal.synthetic.methods import METHODS, TABLE_METHODS, Method, Settings, solve
from depthbal.synthetic.problems import COLUMNS, draw_data, parse_column

__all__ = [
    "COLUMNS",
    "METHODS",
    "TABLE_1",
    "TABLE_METHODS",
    "Cell",
    "Method",
    "Settings",
    "draw_data",
    "parse_column",
    "run_benchmark",
    "solve",
    "summary",
]
