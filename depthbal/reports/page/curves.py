"""Learning curves, and the noise scale over training and over the label."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthbal.reports.results import FloatArray, Result
from depthbal.reports.vocabulary import curve_name, jsonable

MAX_POINTS = 400
"""A longer curve is shown by means over equally many consecutive points."""

Lines = list[dict[str, Any]]


def thinned(steps: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return at most `MAX_POINTS` points: means over stretches, ends of the stretches' steps."""
    stretch = -(-len(steps) // MAX_POINTS)
    if stretch <= 1:
        return steps, values
    starts = np.arange(0, len(steps), stretch)
    ends = np.append(starts[1:], len(steps))
    return steps[ends - 1], np.add.reduceat(values, starts) / (ends - starts)


def learning_curves(results: Sequence[Result]) -> Lines:
    """Return one panel per logged quantity that is no learning rate and no noise scale."""
    main = results[0].scores.main_metric
    first = ("train/loss_epoch", "train/loss", f"val/{main}_bins", f"val/{main}")

    def rank(name: str) -> int:  # the noisy loss of steps last
        if name in first:
            return first.index(name)
        return 9 if name.endswith("_step") else 5 if name.startswith("val/") else 6

    names = dict.fromkeys(
        name
        for result in results
        for name, (steps, _) in result.curves.items()
        if len(steps) > 1 and not name.startswith("lr-") and "noise" not in name
    )
    return [
        {"name": curve_name(name), "lines": [_line(result, name) for result in results]}
        for name in sorted(names, key=rank)
    ]


def sigma_over_training(results: Sequence[Result]) -> Lines:
    """Return the lines of sigma over the steps: {"run", "name", "x", "y"}."""
    lines = []
    for number, result in enumerate(results):
        for name in ("sigma", "sigma_near", "sigma_middle", "sigma_far"):
            line = _line(result, f"train/noise_{name}")
            if line and not result.posthoc:
                lines.append({"run": number, "name": name.replace("_", " "), **line})
    return lines


def sigma_over_label(results: Sequence[Result]) -> Lines:
    """Return the last sigma over the predicted label: {"run", "x", "y"}.

    A constant sigma is two points. One that follows the prediction is, from its logged values,
    sigma(p) = min(softplus(a + b p), cap); where only near, middle and far are known, these three.
    """
    lines = []
    for number, result in enumerate(results):
        last = {name: float(y[-1]) for name, (_, y) in result.curves.items()}
        places = [last.get(f"train/noise_sigma_{place}") for place in ("near", "middle", "far")]
        three = [sigma for sigma in places if sigma is not None]
        x, y = np.linspace(*result.ends, 2), np.full(2, result.noise_sigma or math.nan)
        if len(three) == 3 and not result.posthoc:
            x, y = np.linspace(*result.ends, 3), np.array(three)
            if "train/noise_a" in last and "train/noise_b" in last:
                x = np.linspace(*result.ends, 100)
                softplus = np.logaddexp(0.0, last["train/noise_a"] + last["train/noise_b"] * x)
                # sigma is monotone in the label, so that the largest end is the cap where it holds
                y = np.minimum(softplus, max(three))
        if result.predicts_label and np.isfinite(y).all():
            lines.append({"run": number, "x": jsonable(x), "y": jsonable(y)})
    return lines


def changing(lines: Lines) -> Lines:
    """Return the lines if one of them is not flat: flat ones alone make an empty-looking figure."""
    flat = all(math.isclose(min(line["y"]), max(line["y"]), rel_tol=1e-6) for line in lines)
    return [] if flat else lines


def constant_sigma(results: Sequence[Result]) -> str:
    """Return a sentence with every sigma that no figure shows, "" where there is none."""
    training, over_label = sigma_over_training(results), sigma_over_label(results)
    label, what = results[0].scores.label.name, []
    if constant := bool(over_label) and not changing(over_label):
        what.append(f"one number for every {label}")
    if training and not changing(training):
        what.append("fixed over training")
    unit = f"\u00a0{results[0].sigma_unit}".rstrip("\u00a0")
    values = []
    for line in over_label if constant else training:
        place = line.get("name", "").removeprefix("sigma").strip()  # "near" of "sigma near"
        name = results[line["run"]].name + (f", {place}" if place else "")
        values.append(f"{line['y'][-1]:.4g}{unit} for {name}")
    return f"Noise scale sigma, {', '.join(what)}: {'; '.join(values)}." if what else ""


def _line(result: Result, name: str) -> dict[str, Any] | None:
    if name not in result.curves:
        return None
    x, y = thinned(*result.curves[name])
    return {"x": jsonable(x), "y": jsonable(y)}
