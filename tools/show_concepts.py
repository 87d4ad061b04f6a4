#!/usr/bin/env python
"""Draw the pictures of docs/concepts.md: depth seen with noise, most of it near."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot

from depthbal.commands import run
from depthbal.losses import balance_predictions
from depthbal.priors import Histogram

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LOW, HIGH, NOISE = 0.7, 10.0, 1.0
RANGE = (LOW, HIGH)
GREY = "#808080"  # text and axes, readable on white and on black
DEPTHS = np.linspace(LOW, HIGH, 187)
SEEN = np.linspace(LOW - 5, HIGH + 5, 965)  # depth plus noise: all that a regressor sees
COLOURS = ("C3", "C1", "C2", "C9", "C0", "C4")
STYLE = {
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), GREY),
    **dict.fromkeys(("xtick.color", "ytick.color", "legend.labelcolor"), GREY),
    "svg.fonttype": "none",
    "svg.hashsalt": "depthbal",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 2,
}


def density(depth: np.ndarray) -> np.ndarray:
    """Return the training depths' density, up to a factor: most within 3 m, few beyond 7 m."""
    return np.asarray((depth - LOW + 0.1) * np.exp(-(depth - LOW) / 1.1))


def likelihood(seen: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Return N(seen; depth, NOISE^2), up to a factor, for all pairs."""
    return np.asarray(np.exp(-((seen[:, None] - depth) ** 2) / (2 * NOISE**2)))


HISTOGRAM = Histogram.regular(LOW, HIGH, 0.1)
HISTOGRAM.counts[:] = 1e6 * density(HISTOGRAM.centers) / density(HISTOGRAM.centers).sum()
_WEIGHTS = likelihood(SEEN, HISTOGRAM.centers) * HISTOGRAM.counts
PLAIN = (_WEIGHTS @ HISTOGRAM.centers) / _WEIGHTS.sum(1)  # E[depth | seen]: what MSE learns


def balanced(
    sigma: float = NOISE,
    tau: float = 1.0,
    world: str = "uniform",
    label_range: tuple[float, float] | None = RANGE,
) -> np.ndarray:
    """Return the predictions of Balanced MSE for all of SEEN."""
    kernel = HISTOGRAM.relative_to(world, tau)
    found = balance_predictions(torch.from_numpy(PLAIN), kernel, sigma, label_range)
    return np.asarray(found.numpy())


def moments(preds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bias and the RMSE of predictions, at every one of DEPTHS, over the noise."""
    weights = likelihood(SEEN, DEPTHS)
    weights /= weights.sum(0)
    errors = preds[:, None] - DEPTHS
    return (weights * errors).sum(0), np.sqrt((weights * errors**2).sum(0))


def imbalance(axes: Sequence[pyplot.Axes]) -> None:
    """Draw the training depths, and what the squared error makes of them."""
    axes[0].bar(HISTOGRAM.centers, 100 * HISTOGRAM.counts / HISTOGRAM.total, 0.08, color="C0")
    axes[0].set(xlabel="depth in m", ylabel="% of training pixels")
    axes[1].axhline(0, color=GREY, linewidth=1)
    axes[1].plot(DEPTHS, moments(PLAIN)[0], color="C3", label="squared error")
    axes[1].set(xlabel="depth in m", ylabel="bias in m")


def balancing(axes: Sequence[pyplot.Axes]) -> None:
    """Draw the prediction for what is seen, and the error at every depth."""
    inside = (SEEN >= 0) & (SEEN <= 11)
    axes[0].plot(SEEN[inside], SEEN[inside], ":", color=GREY, linewidth=1)
    for name, preds, colour in (("MSE", PLAIN, "C3"), ("Balanced MSE", balanced(), "C0")):
        axes[0].plot(SEEN[inside], preds[inside], color=colour, label=name)
        axes[1].plot(DEPTHS, moments(preds)[1], color=colour, label=name)
    axes[0].set(xlabel="seen: depth + noise, in m", ylabel="prediction in m")
    axes[0].legend()
    axes[1].set(xlabel="true depth in m", ylabel="RMSE in m", ylim=0)


def readout(axes: Sequence[pyplot.Axes]) -> None:
    """Draw three read-outs of one network, and their bias."""
    raw = balanced(label_range=None)
    ways = {"raw": raw, "clamped": raw.clip(*RANGE), "mean": balanced()}
    inside = (SEEN >= 5) & (SEEN <= 12)
    for colour, (name, preds) in enumerate(ways.items()):
        style = {"label": name, "color": f"C{(1, 2, 0)[colour]}"}
        axes[0].plot(SEEN[inside], preds[inside], **style)
        axes[1].plot(DEPTHS, moments(preds)[1], **style)
    axes[0].axhline(HIGH, color=GREY, linewidth=1, linestyle=":")
    axes[0].set(xlabel="seen: depth + noise, in m", ylabel="prediction in m", ylim=(4, 16))
    axes[0].legend()
    axes[1].set(xlabel="true depth in m", ylabel="RMSE in m", ylim=(0, 2))


def worlds(axes: Sequence[pyplot.Axes]) -> None:
    """Draw three worlds, and the bias of the predictions made for each."""
    each = (
        ("of the training", density(DEPTHS), PLAIN, "C3"),
        ("log_uniform", 1 / DEPTHS, balanced(world="log_uniform"), "C2"),
        ("uniform", DEPTHS**0, balanced(), "C0"),
    )
    axes[1].axhline(0, color=GREY, linewidth=1)
    for name, share, preds, colour in each:
        axes[0].plot(DEPTHS, share / share.mean(), color=colour, label=name)
        axes[1].plot(DEPTHS, moments(preds)[0], color=colour)
    axes[0].set(xlabel="depth in m", ylabel="density, x uniform", ylim=0)
    axes[0].legend()
    axes[1].set(xlabel="true depth in m", ylabel="bias in m")


def _family(axes: Sequence[pyplot.Axes], name: str, each: dict[float, np.ndarray]) -> None:
    """Draw the error at every depth, and its means over near and far depths, one colour a value."""
    points = []
    for (value, preds), colour in zip(each.items(), COLOURS, strict=False):
        _, rmse = moments(preds)
        axes[0].plot(DEPTHS, rmse, color=colour)
        points.append((rmse[DEPTHS < 3.5].mean(), rmse[DEPTHS > 7].mean()))
        axes[1].plot(*points[-1], "o", color=colour)
        text = f"{name} {value:g}"
        axes[1].annotate(text, points[-1], xytext=(6, 4), textcoords="offset points")
    axes[1].plot(*zip(*points, strict=True), color=GREY, linewidth=1, zorder=0)
    axes[0].set(xlabel="true depth in m", ylabel="RMSE in m", ylim=0)
    axes[1].set(xlabel="RMSE nearer than 3.5 m", ylabel="RMSE beyond 7 m")
    axes[1].margins(x=0.3, y=0.15)


def tau(axes: Sequence[pyplot.Axes]) -> None:
    """Draw the errors for shares of the balancing."""
    _family(axes, "tau", {value: balanced(tau=value) for value in (0, 0.25, 0.5, 0.75, 1)})


def sigma(axes: Sequence[pyplot.Axes]) -> None:
    """Draw the errors for noise scales, of which 1 is the right one."""
    _family(axes, "sigma", {value: balanced(value) for value in (0.25, 0.5, 0.75, 1, 1.5, 2)})


def main(arguments: Sequence[str]) -> None:
    """Draw all pictures as SVG."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=FOLDER)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with pyplot.rc_context(STYLE):
        for draw in (imbalance, balancing, readout, worlds, tau, sigma):
            figure, axes = pyplot.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
            draw(axes)
            path = options.out / f"{draw.__name__}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None})
            pyplot.close(figure)
            print(f"Written: {path}")


if __name__ == "__main__":
    raise SystemExit(run(main))
