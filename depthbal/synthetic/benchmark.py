"""Columns times methods, over seeds: medians and quartiles of the test error."""

import multiprocessing
import statistics
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor

from depthbal.errors import ConfigError
from depthbal.synthetic.columns import Column, parse_column
from depthbal.synthetic.data import SyntheticData, draw_data
from depthbal.synthetic.exact import solve_exactly
from depthbal.synthetic.fits import Fit
from depthbal.synthetic.methods import Method, Settings, find_method
from depthbal.synthetic.sgd import train

Solver = Literal["exact", "sgd"]


class Cell(NamedTuple):
    """One entry of the table: test MSE and learned sigma per seed, or why there are none."""

    column: str
    method: str
    errors: tuple[float, ...] = ()
    noise_sigma: tuple[float, ...] | None = None
    iterations: int = 0
    notes: tuple[str, ...] = ()


def run_benchmark(
    columns: Sequence[str],
    methods: Sequence[str],
    seeds: Sequence[int],
    solver: Solver = "exact",
    settings: Settings | None = None,
    epochs: int | None = None,
    workers: int = 1,
) -> Iterator[Cell]:
    """Yield the cells of the table, column by column.

    Args:
        columns: Names, see ``parse_column``.
        methods: Names, see ``METHODS``.
        seeds: One data set each.
        solver: ``"exact"``, or ``"sgd"`` for the supplement's recipe.
        settings: Batch size, components, noise scale.
        epochs: Of ``"sgd"``, in place of the recipe's.
        workers: Processes, each of one thread, that share the columns; 1 for this process alone.

    Raises:
        ConfigError: A name is unknown, or there are no seeds; before anything is computed.
        DataError: A skewness leaves no labels in range.

    Example:
        >>> [cell] = run_benchmark(["normal_low"], ["vanilla"], [0, 1, 2])
        >>> 1.8 < summary(cell.errors)["median"] < 2.4
        True
    """
    chosen = [parse_column(name) for name in columns]
    found = tuple(methods)
    for name in found:
        find_method(name)
    if solver not in get_args(Solver):
        raise ConfigError(f"expected a solver of {', '.join(get_args(Solver))}, got {solver!r}")
    for what, listed in (("column", columns), ("method", methods), ("seed", seeds)):
        if not listed or len(set(listed)) < len(listed):
            raise ConfigError(f"expected at least 1 {what} and none twice, got {list(listed)}")
    if workers < 1:
        raise ConfigError(f"expected at least 1 worker, got {workers}")
    job = _Job(found, tuple(seeds), solver, settings or Settings(), epochs)
    return job.spread(columns, workers) if workers > 1 else job.cells(chosen)


class _Job(NamedTuple):
    """What is to be done with every column."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    solver: Solver
    settings: Settings
    epochs: int | None

    def cells(self, columns: Sequence[Column]) -> Iterator[Cell]:
        """Yield the cells of columns one after the other."""
        for column in columns:
            data = draw_data(column, self.seeds)
            for name in self.methods:
                yield self.cell(data, name)

    def cell(self, data: SyntheticData, name: str) -> Cell:
        """Return one cell."""
        method, column = find_method(name), data.column
        if method.scalars and column.dim > 1:
            return Cell(column.name, name, notes=("left out: for scalar labels only",))
        fit = solve(data, method, self.solver, self.settings, self.epochs)
        errors = tuple(data.test_errors(fit.test_preds).tolist())
        sigma = None if fit.noise_sigma is None else tuple(fit.noise_sigma.tolist())
        return Cell(column.name, name, errors, sigma, fit.iterations, fit.notes)

    def spread(self, columns: Sequence[str], workers: int) -> Iterator[Cell]:
        """Yield the cells of columns that processes share, in order."""
        # Vectors take longest: begun first, they do not keep one process busy at the end.
        order = sorted(columns, key=lambda name: -parse_column(name).dim)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            workers, context, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            futures = {name: pool.submit(_column_cells, self, name) for name in order}
            for name in columns:
                yield from futures[name].result()


def _column_cells(job: _Job, name: str) -> list[Cell]:
    return list(job.cells([parse_column(name)]))


def solve(
    data: SyntheticData,
    method: Method,
    solver: Solver = "exact",
    settings: Settings | None = None,
    epochs: int | None = None,
) -> Fit:
    """Return a method's regressors for all seeds of a column, and what is done afterwards.

    Args:
        data: Of a column.
        method: What to minimise.
        solver: ``"exact"`` or ``"sgd"``.
        settings: Batch size, components, noise scale.
        epochs: Of ``"sgd"``, in place of the recipe's.
    """
    settings = settings or Settings()
    if solver == "exact":
        fit = solve_exactly(data, method, settings)
    else:
        fit = train(data, method, settings, epochs=epochs)
    if method.afterwards is None:
        return fit
    after = method.afterwards
    preds: list[Tensor] = [
        after(preds, data.column, seed, settings)
        for seed, preds in zip(data.seeds, fit.test_preds, strict=True)
    ]
    return fit._replace(test_preds=torch.stack(preds))


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return median, quartiles and the values themselves.

    Example:
        >>> summary([1.0, 4.0, 2.0])
        {'median': 2.0, 'q1': 1.5, 'q3': 3.0, 'values': [1.0, 4.0, 2.0]}
    """
    first, third = (float(np.quantile(values, share)) for share in (0.25, 0.75))
    median = statistics.median(values)
    return {"median": median, "q1": first, "q3": third, "values": list(values)}
