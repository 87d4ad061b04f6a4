"""Learning curves, and the noise scale over training and over the label."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from depthbal.reports.results import Curves, FloatArray, Result
from depthbal.reports.vocabulary import jsonable, metric_name

MAX_POINTS = 400
"""A longer curve is shown by means over equally many consecutive points."""

LABEL_POINTS = 100
Lines = list[dict[str, Any]]


def thinned(steps: FloatArray, values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return at most `MAX_POINTS` points: means over stretches, ends of the stretches' steps.

    Example:
        >>> steps, values = thinned(np.arange(1000.0), np.arange(1000.0))
        >>> len(steps), steps[:2].tolist(), values[:2].tolist()
        (334, [2.0, 5.0], [1.0, 4.0])
    """
    stretch = -(-len(steps) // MAX_POINTS)
    if stretch <= 1:
        return steps, values
    starts = np.arange(0, len(steps), stretch)
    ends = np.append(starts[1:], len(steps))
    means: FloatArray = np.add.reduceat(values, starts) / (ends - starts)
    return steps[ends - 1], means


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
        {"name": curve_name(name), "lines": [_line(result.curves, name) for result in results]}
        for name in sorted(names, key=rank)
    ]


def curve_name(column: str) -> str:
    """Return a column of metrics.csv in words, as it is where it follows no known pattern.

    Example:
        >>> curve_name("val/rmse_bins"), curve_name("train/loss_epoch"), curve_name("mine")
        ('validation RMSE, mean over bins', 'training loss, mean of the epoch', 'mine')
    """
    part, _, rest = column.partition("/")
    where = {"train": "training", "val": "validation"}.get(part)
    if where is None or not rest:
        return column
    endings = {"_bins": ", mean over bins", "_epoch": ", mean of the epoch", "_step": ", steps"}
    ending = next((end for end in endings if rest.endswith(end)), "")
    return f"{where} {metric_name(rest.removesuffix(ending))}{endings.get(ending, '')}"


def sigma_over_training(results: Sequence[Result]) -> Lines:
    """Return the lines of sigma over the steps: {"run", "name", "x", "y"}."""
    lines = []
    for number, result in enumerate(results):
        for name in ("sigma", "sigma_near", "sigma_middle", "sigma_far"):
            line = _line(result.curves, f"train/noise_{name}")
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
        x, y = _sigma_of_label(result)
        if len(x) and result.predicts_label:
            lines.append({"run": number, "x": jsonable(x), "y": jsonable(y)})
    return lines


def _sigma_of_label(result: Result) -> tuple[FloatArray, FloatArray]:
    low, high = result.ends
    last = {name: float(values[-1]) for name, (_, values) in result.curves.items()}
    known = [f"train/noise_sigma_{place}" for place in ("near", "middle", "far")]
    if not result.posthoc and all(name in last for name in known):
        three = np.array([last[name] for name in known])
        if "train/noise_a" in last and "train/noise_b" in last:
            x = np.linspace(low, high, LABEL_POINTS)
            softplus = np.logaddexp(0.0, last["train/noise_a"] + last["train/noise_b"] * x)
            # sigma is monotone in the label, so that the largest end is the cap where it holds
            return x, np.minimum(softplus, three.max())
        return np.linspace(low, high, 3), three
    if result.noise_sigma is None:
        return np.array([]), np.array([])
    return np.array([low, high]), np.full(2, result.noise_sigma)


def changing(lines: Lines) -> Lines:
    """Return the lines if one of them is not flat; flat lines alone make an empty-looking figure.

    Example:
        >>> flat, falling = {"y": [1.0, 1.0]}, {"y": [1.0, 0.5]}
        >>> len(changing([flat])), len(changing([flat, falling]))
        (0, 2)
    """
    flat = all(math.isclose(min(line["y"]), max(line["y"]), rel_tol=1e-6) for line in lines)
    return [] if flat else lines


def constant_sigma(results: Sequence[Result]) -> str:
    """Return a sentence with every sigma that no figure shows, "" where there is none."""
    training, over_label = sigma_over_training(results), sigma_over_label(results)
    fixed = bool(training) and not changing(training)
    constant = bool(over_label) and not changing(over_label)
    if not (fixed or constant):
        return ""
    unit = f"\u00a0{results[0].sigma_unit}" if results[0].sigma_unit else ""
    values = []
    for line in over_label if constant else training:
        place = line.get("name", "").removeprefix("sigma").strip()  # "near" of "sigma near"
        name = results[line["run"]].name + (f", {place}" if place else "")
        values.append(f"{line['y'][-1]:.4g}{unit} for {name}")
    label = results[0].scores.label.name
    what = [f"one number for every {label}"] * constant + ["fixed over training"] * fixed
    return f"Noise scale sigma, {', '.join(what)}: {'; '.join(values)}."


def _line(curves: Curves, name: str) -> dict[str, Any] | None:
    if name not in curves:
        return None
    x, y = thinned(*curves[name])
    return {"x": jsonable(x), "y": jsonable(y)}
