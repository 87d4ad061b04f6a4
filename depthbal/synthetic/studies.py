"""Sweeps over skewness, batch size and components: medians and quartiles of the test error."""

from collections.abc import Sequence
from dataclasses import replace

from depthbal.synthetic.benchmark import run_benchmark, summary
from depthbal.synthetic.methods import Settings

# Values of a sweep to (first quartile, median, third quartile), per method.
Curves = dict[str, dict[float, tuple[float, float, float]]]

SKEWNESS_SWEEPS: dict[str, tuple[float, ...]] = {
    "normal": (0.4, 0.5, 0.75, 1.0, 1.5),
    "exponential": (0.5, 1.0, 1.5, 2.0, 2.5),
    "mvn": (0.16, 0.25, 0.5625, 1.0),
}
BATCH_SIZES = (16, 64, 256, 1024)
COMPONENTS = (1, 2, 4, 8, 16, 64)


def over_skewness(kind: str, methods: Sequence[str], seeds: Sequence[int]) -> Curves:
    """Return errors over the skewness of a kind of labels."""
    curves: Curves = {method: {} for method in methods}
    for value in SKEWNESS_SWEEPS[kind]:
        for cell in run_benchmark([f"{kind}_{value:g}"], methods, seeds):
            curves[cell.method][value] = quartiles(cell.errors)
    return curves


def over_batch_size(
    column: str, seeds: Sequence[int], sizes: Sequence[int] = BATCH_SIZES
) -> Curves:
    """Return BMC's errors over its batch size, with given and with learned noise.

    Example:
        >>> curves = over_batch_size("normal_low", [0, 1], sizes=[128])
        >>> sorted(curves)
        ['bmc', 'bmc_learned']
    """
    curves: Curves = {"bmc": {}, "bmc_learned": {}}
    for size in sizes:
        settings = replace(Settings(), batch_size=size)
        for cell in run_benchmark([column], list(curves), seeds, settings=settings):
            curves[cell.method][size] = quartiles(cell.errors)
    return curves


def over_components(
    column: str, seeds: Sequence[int], numbers: Sequence[int] = COMPONENTS
) -> Curves:
    """Return GAI's errors over the number of its components, with given and learned noise."""
    curves: Curves = {"gai": {}, "gai_learned": {}}
    for number in numbers:
        settings = replace(Settings(), n_components=number)
        for cell in run_benchmark([column], list(curves), seeds, settings=settings):
            curves[cell.method][number] = quartiles(cell.errors)
    return curves


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return first quartile, median and third quartile.

    Example:
        >>> quartiles([1.0, 2.0, 4.0])
        (1.5, 2.0, 3.0)
    """
    found = summary(values)
    return found["q1"], found["median"], found["q3"]
