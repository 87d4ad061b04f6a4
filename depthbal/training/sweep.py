"""What sigma does: the error per shot over the noise scale, trained and balanced afterwards."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from depthbal.errors import ConfigError
from depthbal.files import replacing
from depthbal.training.compare import (
    GROUPS,
    Scores,
    mean_over_bins,
    medians,
    missing_work,
    train_missing,
)
from depthbal.training.compare_posthoc import posthoc_metrics
from depthbal.training.runs import RunFolder

COLOURS = {"overall": "black", "many": "tab:blue", "medium": "tab:orange", "few": "tab:red"}

Sweep = dict[str, Any]


def sweep_sigma(
    plain: Path,
    balanced: Path,
    sigmas: Sequence[float],
    seeds: Sequence[int],
    out: Path,
    train_tool: Path,
    rest: Sequence[str],
) -> Sweep:
    """Train a plain loss once and a balanced one at every sigma, per seed.

    Finished runs of the same settings are read, not repeated.

    Args:
        plain: Config of the plain loss, whose network is also balanced afterwards at every sigma.
        balanced: Config of the balanced loss.
        sigmas: Noise scales in metres.
        seeds: Seeds of the network's start and of the samples' order.
        out: Folder for the runs.
        train_tool: The training script.
        rest: Further settings for every run.

    Returns:
        {"plain": scores, "trained": {sigma: scores}, "afterwards": {sigma: scores}} with medians
        over seeds of the mean over depth bins of the RMSE in metres, per shot, all test pixels.

    Raises:
        ConfigError: No sigma, or one that is not positive.
        RunFolderError: A run was made with other settings, or a training failed.
    """
    if not sigmas or not all(sigma > 0 for sigma in sigmas):
        raise ConfigError(f"expected positive sigmas in metres, got {list(sigmas)}")
    commands: dict[Path, list[str]] = {}
    for seed in seeds:
        of_seed = [f"--seed_everything={seed}", f"--data.seed={seed}", *rest]
        run = _run(out, plain, None, seed)
        commands[run] = missing_work(run, ["--config", str(plain), *of_seed])
        for sigma in sigmas:
            run = _run(out, balanced, sigma, seed)
            noise = f"--model.criterion.init_noise_sigma={sigma}"
            commands[run] = missing_work(run, ["--config", str(balanced), noise, *of_seed])
    train_missing(commands, train_tool)
    return {
        "plain": medians({s: _scores(_run(out, plain, None, s)) for s in seeds}),
        "trained": {
            sigma: medians({s: _scores(_run(out, balanced, sigma, s)) for s in seeds})
            for sigma in sigmas
        },
        "afterwards": {
            sigma: medians({s: _afterwards(_run(out, plain, None, s), sigma) for s in seeds})
            for sigma in sigmas
        },
    }


def draw_sweep(sweep: Sweep, path: Path) -> None:
    """Write the errors over sigma as a picture.

    Args:
        sweep: What ``sweep_sigma`` returned.
        path: Image file to write.
    """
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for group in GROUPS:
        colour = COLOURS[group]
        axes.axhline(sweep["plain"][group], color=colour, linestyle=":", linewidth=1)
        for kind, style, label in (
            ("trained", "-o", f"{group}, trained with Balanced MSE"),
            ("afterwards", "--x", f"{group}, MSE balanced afterwards"),
        ):
            sigmas, values = _line(sweep[kind], group)
            axes.plot(sigmas, values, style, color=colour, markersize=4, label=label)
    axes.plot([], [], ":", color="grey", label="MSE")
    axes.set_xscale("log")
    ticks = list(sweep["trained"])
    axes.set_xticks(ticks, [f"{sigma:g}" for sigma in ticks], minor=False)
    axes.minorticks_off()
    axes.set_xlabel("sigma in metres")
    axes.set_ylabel("RMSE in metres, mean over depth bins")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")


def _line(scores: Mapping[float, Scores], group: str) -> tuple[list[float], list[float]]:
    return list(scores), [of_sigma[group] for of_sigma in scores.values()]


def _run(out: Path, config: Path, sigma: float | None, seed: int) -> Path:
    name = config.stem if sigma is None else f"{config.stem}-sigma{sigma:g}"
    return out / f"{name}-{seed}"


def _scores(run: Path) -> Scores:
    return mean_over_bins(RunFolder(run).metrics())


def _afterwards(run: Path, sigma: float) -> Scores:
    return mean_over_bins(posthoc_metrics(run, sigma))
