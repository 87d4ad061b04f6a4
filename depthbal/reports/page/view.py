"""What all parts of the page know about the results."""

from collections.abc import Sequence
from dataclasses import dataclass

from depthbal.evaluation.scores import metrics_of
from depthbal.reports.comparison import Comparison, Statistic
from depthbal.reports.page.vocabulary import (
    READOUTS,
    MetricInfo,
    Words,
    metric_infos,
    words_of,
)
from depthbal.reports.rebinning import Binning
from depthbal.reports.results import RunResult

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
COLOURS = 8
"""As many as css/base.css has (--run-0, ...)."""


@dataclass(frozen=True)
class RunStyle:
    """How one run is drawn.

    Runs that differ in their seed only look alike; what was balanced afterwards has the colour of
    its run, and other dashes.
    """

    colour: int
    dash: str


def run_styles(results: Sequence[RunResult]) -> list[RunStyle]:
    """Give every method a colour, and further evaluations of its runs other dashes."""
    trained = {str(result.path): result.method for result in results if not result.posthoc}
    origins = [trained.get(str(result.path), result.method) for result in results]
    numbers = {origin: number for number, origin in enumerate(dict.fromkeys(origins))}
    evaluations: dict[str, dict[str, int]] = {}
    styles = []
    for result, origin in zip(results, origins, strict=True):
        found = evaluations.setdefault(origin, {})
        turn = found.setdefault(result.method, len(found)) + numbers[origin] // COLOURS
        # the grey of the first one says "reference", which needs another
        colour = 1 if len(numbers) == 1 else numbers[origin] % COLOURS
        styles.append(RunStyle(colour, DASHES[turn % len(DASHES)]))
    return styles


@dataclass(frozen=True)
class View:
    """What several parts of the page need to know about the results.

    Attributes:
        results: the runs, the first is the reference.
        comparison: of them, or None.
        binnings: of the figures.
        words: nouns.
        metrics: shown, the main one first.
        styles: one per run.
    """

    results: Sequence[RunResult]
    comparison: Comparison | None
    binnings: Sequence[Binning]
    words: Words
    metrics: list[MetricInfo]
    styles: list[RunStyle]

    @property
    def subsets(self) -> list[str]:
        """Every subset that a run has."""
        return list(dict.fromkeys(s for result in self.results for s in result.subsets))

    @property
    def readouts(self) -> list[str]:
        """Every read-out that a run has."""
        return list(dict.fromkeys(r for result in self.results for r in result.readouts))

    @property
    def main(self) -> MetricInfo:
        """The headline's metric."""
        return self.metrics[0]


def make_view(
    results: Sequence[RunResult], comparison: Comparison | None, binnings: Sequence[Binning]
) -> View:
    """Collect what the parts of the page need."""
    first = results[0]
    names = tuple(dict.fromkeys(n for result in results for n in metrics_of(result.terms)))
    scale = first.metrics["overall"].get(first.main_metric) or 1.0
    words = words_of(first)
    metrics = metric_infos(names, first.main_metric, words.unit, scale)
    return View(results, comparison, binnings, words, metrics, run_styles(results))


def readout_name(view: View, key: str) -> str:
    """Name a read-out of all runs; losses without a noise scale have no posterior mean."""
    if key != "mean":
        return READOUTS.get(key, key)
    names = {result.mean_name for result in view.results if key in result.readouts}
    return names.pop() if len(names) == 1 else "posterior mean (raw output without a noise scale)"


def statistic_name(view: View, statistic: Statistic) -> str:
    """Say how a group's number is averaged."""
    if statistic == "bins":
        return f"mean over the bins of {view.words.label}, {view.words.subset('all')}"
    headline = view.results[0].headline
    return f"pooled over {view.words.items}, {view.words.subset(headline)}"
