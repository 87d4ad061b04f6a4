"""What all parts of the page know about the results."""

from collections.abc import Sequence
from dataclasses import dataclass

from depthbal.evaluation.scores import metrics_of
from depthbal.reports.comparison import Comparison, Statistic
from depthbal.reports.page.vocabulary import MetricInfo, Words, metric_infos, words_of
from depthbal.reports.rebinning import Binning
from depthbal.reports.results import RunResult

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
COLOURS = 8
"""As many as css/base.css has (--run-0, ...)."""


@dataclass(frozen=True)
class RunStyle:
    """How one run is drawn: evaluations of one training share its colour, not its dashes."""

    colour: int
    dash: str


def run_styles(results: Sequence[RunResult]) -> list[RunStyle]:
    """Give every run folder a colour, and further evaluations of it other dashes."""
    single = len({str(result.path) for result in results}) == 1
    folders: dict[str, int] = {}
    seen: dict[str, int] = {}
    styles = []
    for result in results:
        key = str(result.path)
        number = folders.setdefault(key, len(folders))
        turn = seen.get(key, 0) + number // COLOURS
        seen[key] = seen.get(key, 0) + 1
        # the grey of the first run says "reference", which needs another run
        colour = 1 if single else number % COLOURS
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


def statistic_name(view: View, statistic: Statistic) -> str:
    """Say how a group's number is averaged."""
    if statistic == "bins":
        return f"mean over {view.words.label} bins, {view.words.subset('all')}"
    headline = view.results[0].headline
    return f"pooled over {view.words.items}, {view.words.subset(headline)}"
