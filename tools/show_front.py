#!/usr/bin/env python
"""Draw a study's table.json as overall against many-shot error: ``show_front.py TABLE FIGURE``."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from depthbal.commands import run

METRIC = "all_pixels.per_bin_mean.{}.rmse"
MARKS = {" balanced afterwards, sigma ": " balanced afterwards (sigma)", ", tau ": " (tau)"}
MARKS["-init_noise_sigma-"] = " (sigma)"


def main(arguments: Sequence[str]) -> None:
    """Draw medians over seeds as joined points, one line per kind of method, and every seed."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("table", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args(arguments)
    table = json.loads(options.table.read_text())
    lines: dict[str, list[str]] = {}
    for method in table:
        for mark, word in MARKS.items():
            kind, found, _ = method.partition(mark)
            if found:
                lines.setdefault(kind + word, []).append(method)
                break
        else:
            if not any(other.startswith(f"{method}, tau ") for other in table):
                lines[method] = [method]
    figure, axes = pyplot.subplots(figsize=(7, 5), layout="constrained")
    for colour, (kind, methods) in enumerate(lines.items()):
        rows = [[table[m][METRIC.format(group)] for group in ("many", "overall")] for m in methods]
        xy = [[one["median"] for one in row] for row in rows]
        style = {"color": f"C{colour}", "marker": "o"}
        axes.plot(*zip(*xy, strict=True), label=kind, **style)
        for method, row, place in zip(methods, rows, xy, strict=True):
            seeds = [one["values"] for one in row]
            axes.plot(*seeds, ".", color=f"C{colour}", alpha=0.35, markersize=4)
            value = method.split()[-1] if " " in method else method.rpartition("-")[2]
            axes.annotate(value, place, textcoords="offset points", xytext=(5, 4), fontsize=8)
    axes.set_xlabel("many-shot RMSE over bins in m")
    axes.set_ylabel("RMSE over all bins in m")
    axes.grid(alpha=0.3)
    axes.legend(title="medians of the seeds, and every seed; lower left is better")
    figure.savefig(options.figure, dpi=150)
    print(f"Written: {options.figure}")


if __name__ == "__main__":
    raise SystemExit(run(main))
