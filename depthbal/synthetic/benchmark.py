"""Columns times methods, over seeds, and the paper's table."""

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from depthbal.errors import ConfigError
from depthbal.synthetic.methods import METHODS, SCALAR_METHODS, Settings, solve
from depthbal.synthetic.problems import COLUMNS, draw_data, parse_column

# Test MSE by method and column (Ren et al., Balanced MSE, CVPR 2022, Table 1): single draws.
TABLE_1 = {
    method: dict(zip(COLUMNS, row, strict=True))
    for method, row in {
        "vanilla": (5.521, 3.275, 1.936, 18.61, 13.14, 6.038, 5.522, 3.809, 2.570),
        "reweight": (1.399, 0.336, 0.092, 4.676, 1.336, 0.128, 3.310, 1.758, 1.001),
        "gai": (0.031, 0.001, 0.001, 0.001, 0.002, 0.004, 0.122, 0.031, 0.011),
        "bmc": (0.043, 0.004, 0.000, 0.002, 0.000, 0.000, 0.126, 0.033, 0.011),
        "gai_learned": (0.089, 0.008, 0.005, 0.130, 0.082, 0.023, 0.184, 0.021, 0.006),
        "bmc_learned": (0.141, 0.060, 0.030, 0.122, 0.104, 0.034, 0.142, 0.025, 0.011),
    }.items()
}


class Cell(NamedTuple):
    """One entry of the table: test MSE and learned sigma per seed, or why there are none."""

    column: str
    method: str
    errors: tuple[float, ...] = ()
    noise_sigma: tuple[float, ...] = ()
    iterations: int = 0
    notes: tuple[str, ...] = ()


def run_benchmark(
    columns: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    settings: Settings | None = None,
    workers: int = 1,
) -> list[Cell]:
    """Return the cells of the table, column by column, one data set per seed.

    Columns are those of ``parse_column``, methods those of ``METHODS``; ``workers`` processes, each
    of one thread, share the columns, 1 for this process alone.

    Raises:
        ConfigError: A name is unknown, or there are no seeds; before anything is computed.
        DataError: A skewness leaves no labels in range.

    Example:
        >>> [cell] = run_benchmark(["normal_low"], ["vanilla"], [0, 1, 2])
        >>> 1.8 < summary(cell.errors)["median"] < 2.4
        True
    """
    # vectors take longest: begun first, they do not keep one process busy at the end
    order = sorted(columns, key=lambda name: -parse_column(name).dim)
    for name in methods:
        if name not in METHODS:
            raise ConfigError(f"expected a method of {', '.join(METHODS)}, got {name!r}")
    for what, listed in (("column", columns), ("method", methods), ("seed", seeds)):
        if not listed or len(set(listed)) < len(listed):
            raise ConfigError(f"expected at least 1 {what} and none twice, got {list(listed)}")
    solved = partial(_column, methods=methods, seeds=seeds, settings=settings or Settings())
    if workers <= 1:
        found = dict(zip(order, map(solved, order), strict=True))
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
            found = dict(zip(order, pool.map(solved, order), strict=True))
    return [cell for name in columns for cell in found[name]]


def _column(
    name: str, methods: Sequence[str], seeds: Sequence[int], settings: Settings
) -> list[Cell]:
    data = draw_data(parse_column(name), seeds)
    cells = []
    for method in methods:
        if method in SCALAR_METHODS and data.column.dim > 1:
            cells.append(Cell(name, method, notes=("left out: for scalar labels only",)))
            continue
        fit = solve(data, METHODS[method], settings)
        errors = tuple(data.test_errors(fit.test_preds).tolist())
        sigma = () if fit.noise_sigma is None else tuple(fit.noise_sigma.tolist())
        cells.append(Cell(name, method, errors, sigma, fit.iterations, fit.notes))
    return cells


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and the values themselves.

    Example:
        >>> summary([1.0, 4.0, 2.0])
        {'median': 2.0, 'q1': 1.5, 'q3': 3.0, 'values': [1.0, 4.0, 2.0]}
    """
    q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q1": q1, "q3": q3, "values": list(values)}
