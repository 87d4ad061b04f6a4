"""The same training with several losses and seeds: medians and differences."""

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from depthbal.errors import RunFolderError
from depthbal.evaluation import SHOTS

GROUPS = ("overall", *SHOTS)

Scores = dict[str, float]


def compare_configs(
    configs: Sequence[Path], seeds: Sequence[int], out: Path, train_tool: Path, rest: Sequence[str]
) -> dict[str, list[Scores]]:
    """Train every config with every seed and return the mean over bins of the RMSE.

    The seed sets the network's start, the order of the samples and, for the rendered rooms, the
    pictures of all splits. A run folder that already holds metrics.json is read, not repeated.

    Args:
        configs: Config files; the first is what the others are compared with.
        seeds: Seeds.
        out: Folder for the runs, OUT/CONFIG-SEED.
        train_tool: The training script.
        rest: Further settings for every run.

    Returns:
        Per config name and seed the RMSE in metres of every shot, over all test pixels.

    Raises:
        RunFolderError: A training failed.
    """
    results: dict[str, list[Scores]] = {config.stem: [] for config in configs}
    for seed in seeds:
        for config in configs:
            run = out / f"{config.stem}-{seed}"
            if not (run / "metrics.json").is_file():
                command = [sys.executable, str(train_tool), "--config", str(config), "--out"]
                command += [str(run), f"--seed_everything={seed}", f"--data.seed={seed}", *rest]
                if subprocess.run(command, check=False).returncode:
                    raise RunFolderError(f"the training of {run} failed; its message is above")
            results[config.stem].append(mean_over_bins(run / "metrics.json"))
    return results


def mean_over_bins(metrics: Path) -> Scores:
    """Return a run's mean over depth bins of the RMSE, per shot, over all test pixels."""
    content = json.loads(metrics.read_text(encoding="utf-8"))
    return {group: content["all_pixels"]["per_bin_mean"][group]["rmse"] for group in GROUPS}


def print_comparison(console: Console, results: dict[str, list[Scores]]) -> None:
    """Print every seed, the medians, and the medians' differences from the first config."""
    table = Table(title="Mean over depth bins of the RMSE in metres", title_justify="left")
    for name in ("config", "seed", *GROUPS):
        table.add_column(name, justify="left" if name == "config" else "right")
    for name, runs in results.items():
        for number, scores in enumerate(runs):
            table.add_row(name, f"#{number + 1}", *(f"{scores[group]:.3f}" for group in GROUPS))
    first, *others = results
    base = medians(results[first])
    for name in results:
        table.add_row(name, "median", *(f"{medians(results[name])[g]:.3f}" for g in GROUPS))
    for name in others:
        found = medians(results[name])
        changes = (f"{100 * (found[group] / base[group] - 1):+.0f} %" for group in GROUPS)
        table.add_row(f"{name} against {first}", "", *changes)
    console.print(table)


def medians(runs: Sequence[Scores]) -> Scores:
    """Return the median over seeds of every group.

    Example:
        >>> medians([{"few": 1.0}, {"few": 5.0}, {"few": 2.0}])
        {'few': 2.0}
    """
    return {group: statistics.median(run[group] for run in runs) for group in runs[0]}
