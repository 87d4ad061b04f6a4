"""What a noise scale that follows the prediction is, in numbers and as a picture."""

from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from depthbal.evaluation import Label
from depthbal.io import replacing
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.priors import Histogram

POINTS = 256
INK, CURVE, AREA = "#333333", "#c44e52", "#d9dee6"


def following_noise(criterion: nn.Module) -> NoiseModule | None:
    """Return a loss's noise module where it follows scalar predictions, else None."""
    noise = getattr(criterion, "noise", None)
    follows = isinstance(noise, NoiseModule) and noise.depends_on_preds
    return noise if follows and not getattr(criterion, "event_dim", 0) else None


def noise_facts(criterion: nn.Module | None) -> dict[str, float]:
    """Return a loss's one noise scale in label units, as an entry of a result's protocol.

    It is that of the weights that were scored, where metrics.csv has that of an earlier step.
    """
    sigma = getattr(criterion, "noise_sigma", None)
    one = isinstance(sigma, int | float) or (isinstance(sigma, Tensor) and sigma.numel() == 1)
    return {"noise_sigma": float(sigma)} if sigma is not None and one else {}


def sigma_at(noise: NoiseModule, preds: Tensor) -> Tensor:
    """Return sigma at predictions (n,) in label units, on the CPU and detached."""
    state = [*noise.parameters(), *noise.buffers(), preds]
    with torch.no_grad():
        sigma: Tensor = noise(preds.to(state[0].device))
    return sigma.expand_as(preds).cpu()


def noise_values(noise: NoiseModule, label_range: tuple[float, float]) -> dict[str, float]:
    """Return sigma at the ends and in the middle of the label range, and a and b if it has them."""
    low, high = label_range
    sigmas = sigma_at(noise, torch.tensor([low, (low + high) / 2, high])).tolist()
    values = dict(zip(("sigma_near", "sigma_middle", "sigma_far"), sigmas, strict=True))
    if isinstance(noise, DepthNoise):
        values |= {"a": noise.intercept.item(), "b": noise.slope.item()}
    return values


def save_noise_picture(
    path: Path,
    noise: NoiseModule,
    label_range: tuple[float, float],
    histogram: Histogram | None,
    label: Label,
) -> None:
    """Draw sigma over the prediction, above the training labels' distribution if that is known."""
    preds = torch.linspace(*label_range, POINTS)
    # the figure's own canvas: pyplot would keep global state and may look for a display
    with matplotlib.rc_context({"font.size": 9, "axes.edgecolor": INK, "text.color": INK}):
        figure = Figure(figsize=(6.0, 3.4), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(preds, sigma_at(noise, preds), color=CURVE, linewidth=2)
        if isinstance(noise, DepthNoise):
            axes.axhline(noise.max_sigma, color=CURVE, linestyle=":", linewidth=1)
            axes.text(label_range[0], noise.max_sigma, "largest allowed", va="bottom", color=CURVE)
            formula = f"softplus({noise.intercept.item():.3f} {noise.slope.item():+.4f} p)"
            axes.set_title(f"noise scale sigma(p) = {formula}", loc="left")
        names = f"predicted {label.name} p ({label.unit})", f"sigma ({label.unit})"
        axes.set(xlabel=names[0], ylabel=names[1], xlim=label_range)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        if histogram is not None:
            _add_histogram(axes, histogram)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120)


def _add_histogram(axes: Any, histogram: Histogram) -> None:
    behind = axes.twinx()
    share = 100 * histogram.counts / histogram.total
    behind.stairs(share, histogram.edges, fill=True, color=AREA)
    behind.set_ylabel("training labels per bin in %")
    behind.set_ylim(bottom=0)
    axes.set_zorder(behind.get_zorder() + 1)
    axes.patch.set_visible(False)
