#!/usr/bin/env python
"""Draw a study's table.json as overall against many-shot error: ``show_front.py TABLE FIGURE``."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from depthbal.commands import run

METRIC = "all_pixels.per_bin_mean.{}.rmse"
# a method and its own curve: what stands behind the mark is the point's name
MARKS = {" balanced afterwards, sigma ": "sigma afterwards", ", tau ": "tau"}
MARKS["-init_noise_sigma-"] = "sigma"


def main(arguments: Sequence[str]) -> None:
    """Draw medians over seeds, those of one method joined, and every seed."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("table", type=Path)
    parser.add_argument("figure", type=Path)
    options = parser.parse_args(arguments)
    table = json.loads(options.table.read_text())
    lines: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    words = {}
    for method, row in table.items():
        kind, value = method, ""
        for mark, word in MARKS.items():
            if mark in method:
                kind, _, value = method.partition(mark)
                words[kind] = f"{kind} ({word})"
        lines.setdefault(kind, {})[value] = [row[METRIC.format(x)] for x in ("many", "overall")]
    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for number, (kind, points) in enumerate(lines.items()):
        colour = f"C{number % 10}"
        ordered = sorted(points.items(), key=lambda point: point[1][0]["median"])
        xy = [[one["median"] for one in row] for _, row in ordered]
        style = {"color": colour, "marker": "os^Dv"[number // 2 % 5], "markersize": 5}
        axes.plot(*zip(*xy, strict=True), label=words.get(kind, kind), **style)
        for (value, row), place in zip(ordered, xy, strict=True):
            axes.plot(*(one["values"] for one in row), ".", color=colour, alpha=0.3, markersize=3)
            offset = {"xytext": (5, 4), "textcoords": "offset points"}
            axes.annotate(value, place, **offset, fontsize=7, color=colour)
    axes.set_xlabel("many-shot RMSE over bins in m")
    axes.set_ylabel("RMSE over all bins in m")
    axes.grid(alpha=0.3)
    axes.legend(title="medians of the seeds, and every seed; lower left is better", fontsize=8)
    figure.savefig(options.figure, dpi=150)
    print(f"Written: {options.figure}")


if __name__ == "__main__":
    raise SystemExit(run(main))
