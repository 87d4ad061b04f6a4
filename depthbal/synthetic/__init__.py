"""Table 1 of the Balanced MSE paper: regression problems whose answer is known."""

from depthbal.synthetic.benchmark import Cell, run_benchmark, solve, summary
from depthbal.synthetic.columns import (
    COLUMNS,
    NONLINEAR_COLUMNS,
    Column,
    expected_vanilla_error,
    parse_column,
)
from depthbal.synthetic.data import SyntheticData, draw_data
from depthbal.synthetic.fits import Fit
from depthbal.synthetic.methods import METHODS, TABLE_METHODS, Method, Settings, find_method
from depthbal.synthetic.published import TABLE_1

__all__ = [
    "COLUMNS",
    "METHODS",
    "NONLINEAR_COLUMNS",
    "TABLE_1",
    "TABLE_METHODS",
    "Cell",
    "Column",
    "Fit",
    "Method",
    "Settings",
    "SyntheticData",
    "draw_data",
    "expected_vanilla_error",
    "find_method",
    "parse_column",
    "run_benchmark",
    "solve",
    "summary",
]
