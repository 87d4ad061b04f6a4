"""What page and markdown share: nouns, metrics, how runs are drawn, the answer and its words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from depthbal.evaluation import GROUPS, metrics_of
from depthbal.reports.resampling import FEW_UNITS, LEVEL, MAX_LOST, MIN_UNITS, Units
from depthbal.reports.results import FloatArray, Method, Result
from depthbal.reports.vocabulary import ALIGNED, SUBSETS, MetricInfo, fixed, metric_infos, short

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
COLOURS = 8
"""As many as the style sheet has (--run-0, ...)."""


Statistic = Literal["bins", "pooled"]
"""How a group's number is averaged: over the non-empty bins of all pixels, in which no draw of a
mask is, or as the top level of metrics.json (balanced mask, all samples, or mean over images)."""
STATISTICS: tuple[Statistic, ...] = ("bins", "pooled")

MIN_IMAGES = 20
"""A bin supported by fewer images than this is flagged: its numbers rest on too little."""


@dataclass(frozen=True)
class Binning:
    """Bins of a figure: each is a union of neighbouring scored bins of the evaluation."""

    name: str  # for people: "0.1 m", "0.5 m", "log-spaced (edges on 0.1 m)"
    low: FloatArray  # (coarse,) label units
    high: FloatArray  # the last bin takes everything beyond
    members: FloatArray  # (coarse, bins) 1 where the fine bin belongs to the coarse one
    thin: npt.NDArray[np.bool_]  # (coarse,) whether fewer than MIN_IMAGES images have a pixel in it


class Difference(NamedTuple):
    """A metric of one group, second minus first, with its 95 % interval; None where unknown."""

    first: float | None = None
    second: float | None = None
    estimate: float | None = None
    low: float | None = None
    high: float | None = None


class Pair(NamedTuple):
    """A method, by its place, against the first."""

    second: int
    differences: Mapping[tuple[str, str, Statistic], Difference]
    # by metric and binning: {"estimate", "low", "high": (coarse,)}, NaN where unknown
    bands: Mapping[tuple[str, int], dict[str, FloatArray]]


@dataclass(frozen=True)
class Comparison:
    """All methods against each other on the same images, or a single result: tables and words.

    The first one is the baseline, and gives bins, label and protocol.
    """

    results: Sequence[Result]  # with the bins of the first
    methods: tuple[Method, ...]
    compared: tuple[str, ...]  # metrics, the main one first
    pairs: tuple[Pair, ...]
    binnings: tuple[Binning, ...]  # those of the pairs' bands
    units: Units  # what was drawn
    support: npt.NDArray[np.int64]  # (bins,) units that have pixels of the bin
    resamples: int
    seed: int
    empty: npt.NDArray[np.bool_]  # (resamples, bins) a bin that has pixels was empty, and left out
    remarks: tuple[str, ...]  # what a reader must know about the protocols, in words

    @property
    def first(self) -> Result:
        """The reference, which gives bins, label and protocol."""
        return self.results[0]

    @property
    def axis(self) -> str:
        """The label with its unit, for axes."""
        name, unit, *_ = self.first.scores.label
        return f"{name} ({unit})" if unit else name

    @property
    def items(self) -> str:
        """What is counted: "pixels" or "samples"."""
        return self.first.items

    @cached_property
    def metrics(self) -> list[MetricInfo]:
        """The metrics shown, the main one first."""
        names = [name for result in self.results for name in metrics_of(result.scores.terms)]
        scores = self.first.scores
        scale = self.first.metrics["overall"].get(scores.main_metric)
        return metric_infos(names, scores.main_metric, scores.label.unit, scale)

    @property
    def main(self) -> MetricInfo:
        """The headline's metric."""
        return self.metrics[0]

    @cached_property
    def styles(self) -> list[dict[str, Any]]:
        """Colour and dash of every run: one for all seeds, other dashes if balanced afterwards."""
        trained = {r.run: r.method for r in self.results if not r.posthoc}
        origins = [trained.get(result.run, result.method) for result in self.results]
        colours = list(dict.fromkeys(origins))
        styles = []
        for result, origin in zip(self.results, origins, strict=True):
            alike = zip(self.results, origins, strict=True)
            evaluations = list(dict.fromkeys(r.method for r, o in alike if o == origin))
            turn, colour = divmod(colours.index(origin), COLOURS)
            dash = DASHES[(turn + evaluations.index(result.method)) % len(DASHES)]
            # the grey of the first one says "reference", which needs another
            styles.append({"colour": colour if len(colours) > 1 else 1, "dash": dash})
        return styles

    # ---- names ----

    def subset_name(self, key: str) -> str:
        """Name a subset: "balanced mask", "all pixels"."""
        return SUBSETS.get(key, key).format(items=self.items)

    def readout_name(self, key: str) -> str:
        """Name a read-out of all runs."""
        names = {r.readout_name(key) for r in self.results if key in r.readouts}
        return names.pop() if len(names) == 1 else "posterior mean (raw output of plain losses)"

    def statistic_name(self, statistic: Statistic) -> str:
        """Say how a group's number is averaged."""
        scores = self.first.scores
        if statistic == "bins":
            return f"mean over the bins of {scores.label.name}, {self.subset_name('all')}"
        if scores.averaging == "images":
            return "mean over images"
        return f"pooled over {self.items}, {self.subset_name(scores.headline)}"

    # ---- the answer ----

    def numbers(
        self, runs: Sequence[int], metric: str, statistic: Statistic
    ) -> dict[str, float | None]:
        """Return the number of every group, the mean over runs."""
        blocks = [self.results[run].metrics for run in runs]
        if statistic == "bins":
            blocks = [block.get("all_pixels", block)["per_bin_mean"] for block in blocks]
        found: dict[str, float | None] = {}
        for group in GROUPS:
            known = [v for block in blocks if (v := block[group].get(metric)) is not None]
            found[group] = sum(known) / len(known) if len(known) == len(runs) else None
        return found

    @property
    def tables(self) -> list[dict[str, Any]]:
        """One table per metric and statistic, the main metric's mean over bins first."""
        known = [i for i in self.metrics if i.key != "mse" and i.key in self.compared]
        return [self._table(info, statistic) for info in known for statistic in STATISTICS]

    def _table(self, info: MetricInfo, statistic: Statistic) -> dict[str, Any]:
        """Return the table of a metric, with each method's differences to the first one."""
        rows = [self.numbers(method.runs, info.key, statistic) for method in self.methods]
        groups = [group for group in GROUPS if any(row[group] is not None for row in rows)]
        best = {group: info.best(row[group] for row in rows) for group in groups}
        changes = [dict.fromkeys(groups, Difference()) for _ in rows]
        for pair in self.pairs:
            changes[pair.second] = {g: pair.differences[info.key, g, statistic] for g in groups}
        ends = [x for row in changes for d in row.values() for x in d[2:] if x is not None]

        def cell(value: float | None, group: str, change: Difference) -> dict[str, Any]:
            wins = len(rows) > 1 and value is not None and value == best[group]
            shown = {"value": info.fixed(value), "exact": value, "best": wins}
            return shown | _change(change, info)

        return {
            "key": f"{info.key}-{statistic}",
            "metric": info,
            "statistic": statistic,
            "groups": groups,
            "reach": max(map(abs, ends), default=0) / 0.96,  # of the drawn intervals
            "rows": [
                {
                    "name": method.name,
                    "seeds": len(method.runs),
                    **self.styles[method.runs[0]],
                    "cells": [cell(row[group], group, change[group]) for group in groups],
                }
                for method, row, change in zip(self.methods, rows, changes, strict=True)
            ],
        }

    @cached_property
    def protocols(self) -> dict[str, Any]:
        """Overall numbers by protocol, averaging and alignment: "metrics", "rows", "notes"."""
        found = [(r.name, row) for r in self.results for row in r.metrics.get("protocols", [])]
        keys = {key for _, row in found for key in row} - {"mse"}
        infos = [info for info in self.metrics if info.key in keys]
        given = [r.scores.given.get("alignment", {}) for r in self.results]
        notes = {ALIGNED.get(k, "none"): what for one in given for k, what in one.items()}
        rows: list[dict[str, Any]] = []
        for name, row in found:
            cap, unit = row["cap"], self.first.scores.label.unit
            after = ", balanced afterwards" if row["readout"] == "balanced" else ""
            where = f", {self.subset_name(row['subset'])}" if row["subset"] != "all" else ""
            about = {
                "run": name,
                "protocol": (row["protocol"] or "").partition(",")[0],
                "crop": row["crop"] or "–",
                "cap": f"{cap[0]:g}–{cap[1]:g} {unit}" if cap else "–",
                "averaged over": row["averaging"].rpartition(" ")[2] + where,
                "alignment": ALIGNED.get(row["alignment"], "none") + after,
            }
            values = [(info.fixed(row.get(info.key)), row.get(info.key)) for info in infos]
            rows.append({"about": about, "values": values})
        if len(self.results) == 1:
            for one in rows:
                del one["about"]["run"]
        return {"metrics": infos, "rows": rows, "notes": notes}

    # ---- words ----

    @property
    def lead(self) -> str:
        """How much worse rare labels are, or who does best where, and whether it is metric."""
        fitted: dict[str, list[str]] = {}
        for result in self.results:
            if result.scores.main.endswith("_aligned"):
                fitted.setdefault(result.readout_name(), []).append(result.name)
        marks = [f"Predictions of {', '.join(runs)} are {how}." for how, runs in fitted.items()]
        return " ".join([self._best, *marks])

    @property
    def _best(self) -> str:
        info, how = self.main, self.statistic_name("bins")
        rows = [self.numbers(method.runs, info.key, "bins") for method in self.methods]
        if len(self.results) == 1:
            many, few = rows[0]["many"], rows[0]["few"]
            if not (many and few):
                return f"{info.name} is {info.text(rows[0]['overall'])} ({how})."
            return (
                f"{info.name} is {info.text(few)} where training labels are few, "
                f"{fixed(few / many, 1)} times the {info.text(many)} where they are many ({how})."
            )
        won: dict[str, list[str]] = {}
        for group in ("overall", "many", "few"):
            values = [row[group] for row in rows]
            if (best := info.best(values)) is not None:
                place = group if group == "overall" else f"where training labels are {group}"
                name = self.methods[values.index(best)].name
                won.setdefault(name, []).append(f"{place} ({info.text(best)})")
        extreme = "highest" if info.better == "higher" else "lowest"
        images = f"{len(self.first.scores.names):,} test images"
        found = "; ".join(f"{name} {', '.join(words)}" for name, words in won.items())
        return f"The {extreme} {info.name} on these {images}: {found}. {how.capitalize()}."

    @property
    def sentences(self) -> list[str]:
        """What the comparison found, main metric, and over what it holds."""
        info, sentences = self.main, []
        what = f"{info.name} as the mean over the bins of {self.first.scores.label.name}"
        for pair in self.pairs:
            names = f"{self.methods[pair.second].name} against {self.methods[0].name}"
            differences = [(group, pair.differences[info.key, group, "bins"]) for group in GROUPS]
            found = [_clause(g, d, info) for g, d in differences if d.estimate is not None]
            said = f"{names}, {what}, all {self.items}: {'; '.join(found)}. {self._scope(pair)}"
            sentences.append(said if found else f"{names}: no scored bin has {self.items}.")
        return sentences

    def _scope(self, pair: Pair) -> str:
        """Say over which scenes and seeds a difference holds."""
        methods = self.methods[0], self.methods[pair.second]
        several = [f"{len(m.runs)} seeds of {m.name}" for m in methods if len(m.runs) > 1]
        single = [method.name for method in methods if len(method.runs) == 1]
        over = "over" if self.units.count >= MIN_UNITS else "only on"
        text = f"This holds {over} {' and '.join([self.units.text, *several])}."
        if single:
            seeds = "has one seed" if len(single) == 1 else "have one seed each"
            text += f" {' and '.join(single)} {seeds}: nothing is claimed about the method."
        return text

    def _beyond(self) -> list[str]:
        """Say which share of the labels that are known to lie far is predicted near."""
        known = {r.name: found for r in self.results if (found := r.metrics.get("beyond"))}
        if not known:
            return []
        end, unit = float(self.first.bins.edges[-1]), self.first.scores.label.unit
        shares = [
            f"{float(format(100 * f['nearer_than_half'], '.2g')):g} % by {name}"
            for name, f in known.items()
        ]
        count = next(iter(known.values()))["count"]
        return [
            f"Of {count:,} test {self.items} that are known to lie beyond {short(end)} {unit}, "
            f"nearer than {short(end / 2)} {unit} are predicted {', '.join(shares)}."
        ]

    @property
    def notes(self) -> list[str]:
        """What lies beyond the range, and what to know of protocols and resampling."""
        notes = self._beyond()
        if len(self.results) == 1:
            return notes
        units, resamples, notes = self.units, self.resamples, [*notes, *self.remarks]
        if units.count < MIN_UNITS:
            few = f"{units.text} are too few to draw from, {MIN_UNITS} are needed"
            return [*notes, f"No intervals: {few}."]
        notes.append(
            f"Intervals: central {100 * LEVEL:.0f} % of {resamples:,} resamples of {units.text} "
            f"(seed {self.seed}), each by its own standard error; every interval on its own, "
            "not corrected for their number. Bands over bins hold in all their bins at once."
        )
        scored = self.support[self.first.bins.scored & (self.support > 0)]
        if (scored < FEW_UNITS).any():
            few = f"{(scored < FEW_UNITS).sum()} of {len(scored)} bins rest on fewer than"
            notes.append(
                f"{few} {FEW_UNITS} of {units.text}, the thinnest on {scored.min()}: their "
                "intervals, and those of means over bins, may hold less often than they say."
            )
        if any(len(method.runs) > 1 for method in self.methods):
            notes.append(
                "Where a method has several seeds, intervals allow for the variation between them "
                "by Student's t; methods of the same seeds are compared seed by seed."
            )
        if self.empty.any():
            some, lost = int(self.empty.any(1).sum()), f"{100 * MAX_LOST:.0f} %"
            notes.append(
                f"In {some:,} of {resamples:,} resamples a bin was empty and left out of the mean "
                f"over bins. A number that more than {lost} of the resamples lack has no interval."
            )
        return notes


def _clause(group: str, difference: Difference, info: MetricInfo) -> str:
    first, second, change, low, high = difference
    unit = f" {info.unit}" if info.unit else ""
    text = f"{info.fixed(second)} instead of {info.fixed(first)}{unit}: {info.fixed(change, True)}"
    shot = group if group == "overall" else f"{group}-shot"
    if low is None or high is None:
        return f"{shot} {text}, no interval"
    verdict = "higher" if low > 0 else "lower" if high < 0 else "no difference found"
    verdict = "the same" if low == high == 0 else verdict
    ends = f"{info.fixed(low, True)} to {info.fixed(high, True)}"
    return f"{shot} {verdict} ({text}, {100 * LEVEL:.0f} % interval {ends})"


def _change(difference: Difference, info: MetricInfo) -> dict[str, Any]:
    """Return a cell's difference as numbers and text; better or worse is what leaves 0 out."""
    *_, change, low, high = difference
    verdict, interval = "open", ""
    if low is not None and high is not None:
        interval = f"[{info.fixed(low, True)}, {info.fixed(high, True)}]"
        # a bias's change does not tell how near to 0 it ends
        if not low <= 0 <= high and info.better != "zero":
            verdict = "better" if (low > 0) == (info.better == "higher") else "worse"
    text = "" if change is None else info.fixed(change, True)
    return difference._asdict() | {"change": text, "verdict": verdict, "interval": interval}
