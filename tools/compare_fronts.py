#!/usr/bin/env python
"""At equal many-shot error, what a study's methods gain over balancing one of them afterwards.

``compare_fronts.py TABLE`` reads a study's table.json and the evaluations that it names.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from depthbal.commands import run
from depthbal.evaluation import Scores
from depthbal.evaluation.terms import metric_values, metrics_of
from depthbal.reports.resampling import draw, resampled, seed_weights, units_of

Array = npt.NDArray[np.float64]
RESAMPLES = 1000
AFTERWARDS = " balanced afterwards, sigma "


def errors(folder: str, seed: int = 0) -> Array:
    """Return mean RMSE over the bins of many, medium, few and all, (1 + resamples, 4)."""
    scores = Scores.load(Path(folder))
    units = units_of(scores.groups)
    drawn = resampled(draw(units.count, RESAMPLES, seed), units.sums(scores.sums("all")))
    per_bin = metric_values(drawn, scores.terms)[..., metrics_of(scores.terms).index("rmse")]
    shots = np.array([shot or "" for shot in scores.bins.shots])
    groups = [shots == name for name in ("many", "medium", "few")]
    return np.stack([np.nanmean(per_bin[:, g], 1) for g in (*groups, scores.bins.scored)], 1)


def gains(method: Sequence[Array], curve: Sequence[Sequence[Array]]) -> tuple[Array, Array]:
    """Return the error of all bins, and of few, over the curve's at the same many-shot error.

    `method` has every seed's errors, `curve` those of every point of the other's curve; results
    are (seeds, 1 + resamples), NaN where the curve does not reach so far.
    """
    found = np.full((2, len(method), 1 + RESAMPLES), np.nan)
    for seed, own in enumerate(method):
        points = np.stack([point[seed] for point in curve])  # (points, 1 + resamples, 4)
        for draw_, (many, _, few, overall) in enumerate(own):
            order = np.argsort(points[:, draw_, 0])
            x = points[order, draw_, 0]
            if x[0] <= many <= x[-1]:
                for place, (column, value) in enumerate(((3, overall), (2, few))):
                    there = np.interp(many, x, points[order, draw_, column])
                    found[place, seed, draw_] = value - there
    return found[0], found[1]


def text(gap: Array, weights: Array) -> str:
    """Return the mean over seeds with its 95 % interval over images and seeds."""
    if np.isnan(gap[:, 0]).any():
        return "beyond the curve"
    mean = (weights * gap.T).sum(1)
    known = mean[1:][np.isfinite(mean[1:])]
    low, high = np.quantile(known, (0.025, 0.975))
    return f"{mean[0]:+.3f} ({low:+.3f} to {high:+.3f})"


def main(arguments: Sequence[str]) -> None:
    """Print a row per method: its errors, and its gain at equal many-shot error."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("table", type=Path)
    parser.add_argument("--base", default="mse", help="the method whose curve is compared with")
    options = parser.parse_args(arguments)
    table = json.loads(options.table.read_text())
    base = [m for m in table if m == options.base or m.startswith(options.base + AFTERWARDS)]
    curve = [[errors(run_) for run_ in table[method]["runs"]] for method in base]
    seeds = list(range(len(curve[0])))
    weights = seed_weights(seeds, RESAMPLES, 0)
    print(f"Errors are RMSE over bins in m; at equal many-shot error against {options.base} with")
    print("its curve of balancing afterwards, mean of seeds (95 % over images and seeds):\n")
    print("| method | many | medium | few | overall | overall at equal many | few at equal many |")
    print("|---|---|---|---|---|---|---|")
    for method, row in table.items():
        own = [errors(run_) for run_ in row["runs"]]
        mean = np.mean([one[0] for one in own], axis=0)
        cells = [f"{value:.3f}" for value in mean]
        if method in base:
            cells += ["-", "-"]
        elif len(own) != len(seeds):
            cells += ["seeds are missing"] * 2
        else:
            cells += [text(gap, weights) for gap in gains(own, curve)]
        print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    raise SystemExit(run(main))
