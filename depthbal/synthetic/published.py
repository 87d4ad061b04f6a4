"""Table 1 of the paper: single draws, as printed."""

from depthbal.synthetic.columns import COLUMNS

_ROWS = {
    "vanilla": (5.521, 3.275, 1.936, 18.61, 13.14, 6.038, 5.522, 3.809, 2.570),
    "reweight": (1.399, 0.336, 0.092, 4.676, 1.336, 0.128, 3.310, 1.758, 1.001),
    "gai": (0.031, 0.001, 0.001, 0.001, 0.002, 0.004, 0.122, 0.031, 0.011),
    "bmc": (0.043, 0.004, 0.000, 0.002, 0.000, 0.000, 0.126, 0.033, 0.011),
    "gai_learned": (0.089, 0.008, 0.005, 0.130, 0.082, 0.023, 0.184, 0.021, 0.006),
    "bmc_learned": (0.141, 0.060, 0.030, 0.122, 0.104, 0.034, 0.142, 0.025, 0.011),
}

# Test MSE by column and method (Ren et al., Balanced MSE, CVPR 2022, Table 1).
TABLE_1: dict[str, dict[str, float]] = {
    column: {method: row[index] for method, row in _ROWS.items()}
    for index, column in enumerate(COLUMNS)
}
