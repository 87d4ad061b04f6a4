"""What page and markdown share: nouns, metrics, how runs are drawn, and the tables of the answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from depthbal.evaluation import GROUPS, metrics_of
from depthbal.reports.binning import Binning, binnings
from depthbal.reports.comparing import STATISTICS, Comparison, Difference, Statistic
from depthbal.reports.methods import Method
from depthbal.reports.results import Result
from depthbal.reports.sentences import notes_of, pair_sentence
from depthbal.reports.vocabulary import READOUTS, MetricInfo, Words, fixed, metric_infos

STRIP_WIDTH = 100
"""Of the drawn intervals' coordinates; they stretch with their cell."""

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
COLOURS = 8
"""As many as the style sheet has (--run-0, ...)."""


@dataclass(frozen=True)
class RunStyle:
    """How one run is drawn.

    Runs that differ in their seed only look alike; what was balanced afterwards has the colour of
    its run, and other dashes.
    """

    colour: int
    dash: str


@dataclass(frozen=True)
class Cell:
    """One number of the answer, with its difference to the first row.

    Attributes:
        value, exact: as text, and in full.
        best: of its column.
        change, interval: of the difference, as text.
        verdict: "better", "worse" where the interval leaves 0 out, else "open".
        strip: the interval as a drawing: "zero", "low", "high", "estimate" in 0 to `STRIP_WIDTH`.
    """

    value: str
    exact: float | None
    best: bool = False
    change: str = ""
    verdict: str = ""
    interval: str = ""
    strip: dict[str, float | None] | None = None


@dataclass(frozen=True)
class Row:
    """One method: its name, how it is drawn in figures, its number of seeds, its cells."""

    name: str
    style: RunStyle
    seeds: int
    cells: list[Cell]


@dataclass(frozen=True)
class Table:
    """One metric, averaged in one way, per method and group of bins."""

    metric: MetricInfo
    statistic: Statistic
    groups: list[str]
    rows: list[Row]

    @property
    def key(self) -> str:
        """Its place on the page."""
        return f"{self.metric.key}-{self.statistic}"


@dataclass(frozen=True)
class Report:
    """One result, or several of one protocol with their comparison.

    Attributes:
        results: the first is the reference.
        comparison: of them, or None for a single one.
    """

    results: Sequence[Result]
    comparison: Comparison | None = None

    @property
    def first(self) -> Result:
        """The reference, which gives bins, label and protocol."""
        return self.results[0]

    @cached_property
    def words(self) -> Words:
        """Nouns."""
        return Words.of(self.first.scores.label, self.first.counts)

    @cached_property
    def metrics(self) -> list[MetricInfo]:
        """The metrics shown, the main one first."""
        names = dict.fromkeys(n for result in self.results for n in metrics_of(result.scores.terms))
        main = self.first.scores.main_metric
        scale = self.first.metrics["overall"].get(main)
        return metric_infos(names, main, self.words.unit, scale)

    @property
    def main(self) -> MetricInfo:
        """The headline's metric."""
        return self.metrics[0]

    @cached_property
    def binnings(self) -> Sequence[Binning]:
        """Those of the figures."""
        return self.comparison.binnings if self.comparison else binnings(self.first)

    @property
    def methods(self) -> Sequence[Method]:
        """The rows of the answer."""
        if self.comparison:
            return self.comparison.methods
        return [Method(self.first.name, (0,), (self.first.seed,))]

    @property
    def subsets(self) -> list[str]:
        """Every subset that a run has."""
        return list(dict.fromkeys(s for result in self.results for s in result.scores.subsets))

    @property
    def readouts(self) -> list[str]:
        """Every read-out that a run has."""
        return list(dict.fromkeys(r for result in self.results for r in result.readouts))

    @cached_property
    def styles(self) -> list[RunStyle]:
        """How every run is drawn: each method has a colour, further evaluations other dashes."""
        trained = {str(r.run): r.method for r in self.results if not r.posthoc}
        origins = [trained.get(str(result.run), result.method) for result in self.results]
        numbers = {origin: number for number, origin in enumerate(dict.fromkeys(origins))}
        evaluations: dict[str, dict[str, int]] = {}
        styles = []
        for result, origin in zip(self.results, origins, strict=True):
            found = evaluations.setdefault(origin, {})
            turn = found.setdefault(result.method, len(found)) + numbers[origin] // COLOURS
            # the grey of the first one says "reference", which needs another
            colour = 1 if len(numbers) == 1 else numbers[origin] % COLOURS
            styles.append(RunStyle(colour, DASHES[turn % len(DASHES)]))
        return styles

    def readout_name(self, key: str) -> str:
        """Name a read-out of all runs; losses without a noise scale have no posterior mean."""
        if key != "mean":
            return READOUTS.get(key, key)
        names = {result.mean_name for result in self.results if key in result.readouts}
        several = "posterior mean (raw output without a noise scale)"
        return names.pop() if len(names) == 1 else several

    def statistic_name(self, statistic: Statistic) -> str:
        """Say how a group's number is averaged."""
        if statistic == "bins":
            return f"mean over the bins of {self.words.label}, {self.words.subset('all')}"
        if self.first.scores.averaging == "images":
            return "mean over images"
        return f"pooled over {self.words.items}, {self.words.subset(self.first.scores.headline)}"

    # ---- numbers ----

    def numbers(
        self, runs: Sequence[int], metric: str, statistic: Statistic
    ) -> dict[str, float | None]:
        """Return the number of every group, the mean over runs."""
        blocks: list[dict[str, Any]] = []
        for run in runs:
            metrics = self.results[run].metrics
            bins = metrics.get("all_pixels", metrics)["per_bin_mean"]
            blocks.append(bins if statistic == "bins" else metrics)
        found: dict[str, float | None] = {}
        for group in GROUPS:
            known = [value for b in blocks if (value := b[group].get(metric)) is not None]
            found[group] = sum(known) / len(known) if len(known) == len(runs) else None
        return found

    @cached_property
    def tables(self) -> list[Table]:
        """One table per metric and statistic, the main metric's mean over bins first."""
        known = [info for info in self.metrics if info.key != "mse"]
        if self.comparison:
            known = [info for info in known if info.key in self.comparison.metrics]
        return [self._table(info, statistic) for info in known for statistic in STATISTICS]

    def _table(self, info: MetricInfo, statistic: Statistic) -> Table:
        methods = self.methods
        rows = [self.numbers(method.runs, info.key, statistic) for method in methods]
        groups = [group for group in GROUPS if any(row[group] is not None for row in rows)]
        best = {group: info.best(row[group] for row in rows) for group in groups}
        all_pairs = self.comparison.pairs if self.comparison else ()
        pairs = {pair.second: pair for pair in all_pairs if pair.first == 0}
        found = [
            {
                g: pairs[n].differences[info.key, g, statistic] if n in pairs else None
                for g in groups
            }
            for n in range(len(methods))
        ]
        ends = [abs(x) for row in found for d in row.values() if d for x in d[2:] if x is not None]
        table = []
        for method, values, changes in zip(methods, rows, found, strict=True):
            cells = [
                Cell(
                    info.fixed(values[group]),
                    values[group],
                    len(methods) > 1 and values[group] is not None and values[group] == best[group],
                    **_change(changes[group], info, max(ends, default=0.0)),
                )
                for group in groups
            ]
            style = self.styles[method.runs[0]]
            table.append(Row(method.name, style, len(method.runs), cells))
        return Table(info, statistic, groups, table)

    # ---- words ----

    @property
    def sentences(self) -> list[str]:
        """What the comparison found, in words."""
        found = self.comparison
        pairs = [pair for pair in found.pairs if pair.first == 0] if found else []
        return [pair_sentence(found, pair, self.main, self.words) for pair in pairs if found]

    @property
    def notes(self) -> list[str]:
        """What a reader must know about the comparison."""
        return notes_of(self.comparison) if self.comparison else []

    @property
    def gaps(self) -> list[str]:
        """What is missing, each with its run where there are several."""
        several = len(self.results) > 1
        return [f"{r.name}: {gap}" if several else gap for r in self.results for gap in r.gaps]

    @property
    def lead(self) -> str:
        """The first sentence: how much worse rare labels are, or who does best where."""
        info, how = self.main, self.statistic_name("bins")
        rows = [self.numbers(method.runs, info.key, "bins") for method in self.methods]
        if self.comparison is None:
            many, few = rows[0]["many"], rows[0]["few"]
            if many and few:
                return (
                    f"{info.name} is {info.text(few)} where training labels are few, "
                    f"{fixed(few / many, 1)} times the {info.text(many)} where they are many "
                    f"({how})."
                )
            return f"{info.name} is {info.text(rows[0]['overall'])} ({how})."
        places = {"overall": "overall"} | {
            shot: f"where training labels are {shot}" for shot in ("many", "few")
        }
        won: dict[str, list[str]] = {}
        for group, words in places.items():
            if (best := info.best(row[group] for row in rows)) is not None:
                number = next(n for n, row in enumerate(rows) if row[group] == best)
                name = self.methods[number].name
                won.setdefault(name, []).append(f"{words} ({info.text(best)})")
        parts = [f"{name} {_listed(words)}" for name, words in won.items()]
        extreme = "highest" if info.better == "higher" else "lowest"
        return (
            f"The {extreme} {info.name} on these {len(self.first.scores.names):,} test images: "
            f"{'; '.join(parts)}. {how.capitalize()}."
        )


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _change(difference: Difference | None, info: MetricInfo, reach: float) -> dict[str, Any]:
    """Return a cell's fields of a difference; the largest distance from 0 is one scale for all."""
    if difference is None or difference.estimate is None:
        return {}
    low, high = difference.low, difference.high
    ends = [fixed(end, info.digits, True) for end in (low, high) if end is not None]

    def place(value: float | None) -> float | None:
        return None if value is None else round(STRIP_WIDTH * (0.5 + 0.48 * value / reach), 2)

    strip = {"low": place(low), "high": place(high), "estimate": place(difference.estimate)}
    return {
        "change": fixed(difference.estimate, info.digits, sign=True),
        "verdict": verdict(difference, info),
        "interval": f"[{', '.join(ends)}]" if ends else "",
        "strip": {"zero": STRIP_WIDTH / 2, **strip} if reach else None,
    }


def verdict(difference: Difference, info: MetricInfo) -> str:
    """Return "better" or "worse" where the interval leaves 0 out, else "open".

    A bias is better the nearer it is to 0, which an interval of its change does not tell.
    """
    low, high = difference.low, difference.high
    if low is None or high is None or low <= 0 <= high or info.better == "zero":
        return "open"
    return "better" if (low > 0) == (info.better == "higher") else "worse"
