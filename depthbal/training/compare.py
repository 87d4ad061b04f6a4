"""The same training with several losses and seeds: medians and differences."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from depthbal.afterwards import require_sigma
from depthbal.errors import ConfigError, RunFolderError
from depthbal.evaluation import SHOTS
from depthbal.training.application import Application
from depthbal.training.compare_posthoc import posthoc_rows
from depthbal.training.depth import DEPTH
from depthbal.training.runs import RunFolder
from depthbal.training.settings import all_settings, different_settings

GROUPS = ("overall", *SHOTS)

Scores = dict[str, float]
Results = dict[str, dict[int, Scores]]


def compare_configs(
    configs: Sequence[Path],
    seeds: Sequence[int],
    out: Path,
    train_tool: Path,
    rest: Sequence[str],
    *,
    posthoc: bool = True,
    posthoc_sigma: float | None = None,
) -> Results:
    """Train every config with every seed and return the mean over bins of the RMSE.

    Networks of plain losses, such as MSE, are also balanced afterwards, which needs no training: it
    is what balanced training has to beat.

    The seed sets the network's start, and the order and augmentation of the samples. A finished
    run of the same settings is read, not repeated; one that was cut off is continued.

    Args:
        configs: Config files; the first is what the others are compared with.
        seeds: Seeds.
        out: Folder for the runs, OUT/CONFIG-SEED.
        train_tool: The training script.
        rest: Further settings for every run.
        posthoc: Whether to balance plain losses afterwards.
        posthoc_sigma: With which noise scale in metres; None takes those of the balanced runs.

    Returns:
        Per config name (and plain loss balanced afterwards) and seed the RMSE in metres of every
        shot, over all test pixels.

    Raises:
        ConfigError: Two configs have the same name, or a setting is unknown or refused.
        RunFolderError: A run was made with other settings, or a training failed.
    """
    if posthoc_sigma is not None:
        require_sigma(posthoc_sigma)  # before hours of training
    if len({config.stem for config in configs}) < len(configs):
        raise ConfigError("two configs have the same file name; their runs would share a folder")
    runs = {c.stem: {seed: out / f"{c.stem}-{seed}" for seed in seeds} for c in configs}
    commands: dict[Path, list[str]] = {}
    for seed in seeds:
        for config in configs:
            settings = ["--config", str(config), f"--seed_everything={seed}"]
            settings += [f"--data.seed={seed}", *rest]
            _require_settings(config, settings)
            run = runs[config.stem][seed]
            commands[run] = missing_work(run, settings)
    # settings and folders of all have been checked before the first training
    train_missing(commands, train_tool)
    afterwards = posthoc_rows(runs, posthoc_sigma) if posthoc else {}
    results: Results = {}
    for name, folders in runs.items():
        files = {seed: RunFolder(run).metrics() for seed, run in folders.items()}
        for row, row_files in {name: files, **afterwards.get(name, {})}.items():
            results[row] = {seed: mean_over_bins(file) for seed, file in row_files.items()}
    return results


def _require_settings(config: Path, settings: Sequence[str]) -> None:
    """Check that a config knows all settings, before the training of another one begins."""
    try:
        all_settings(DEPTH, settings)
    except ConfigError as error:
        raise ConfigError(f"with {config}: {error}") from error


def missing_work(run: Path, settings: Sequence[str], application: Application = DEPTH) -> list[str]:
    """Return the arguments of the training script that finish a run; none where it is finished.

    Args:
        run: The run folder, which need not exist.
        settings: The arguments that start it.
        application: What is trained.

    Raises:
        RunFolderError: The run there was made with other settings.
    """
    folder = RunFolder(run)
    if not folder.is_run():
        return [*settings, "--out", str(run)]
    if different := different_settings(application, folder, settings):
        raise RunFolderError(
            f"{run} was trained with other settings ({'; '.join(different)}); choose another "
            "folder with --out, or delete the run"
        )
    return [] if folder.metrics().is_file() else ["--resume", str(run)]


def train_missing(commands: Mapping[Path, Sequence[str]], train_tool: Path) -> None:
    """Finish runs one after the other, each in a process of its own.

    Args:
        commands: Per run folder what ``missing_work`` returned.
        train_tool: The training script.

    Raises:
        RunFolderError: A training failed.
    """
    for run, command in commands.items():
        line = [sys.executable, str(train_tool), *command]
        if command and subprocess.run(line, check=False).returncode:
            raise RunFolderError(f"the training of {run} failed; its message is above")


def mean_over_bins(metrics: Path) -> Scores:
    """Return a run's mean over depth bins of the RMSE, per shot, over all test pixels."""
    content = json.loads(metrics.read_text(encoding="utf-8"))
    return {group: content["all_pixels"]["per_bin_mean"][group]["rmse"] for group in GROUPS}


def print_comparison(console: Console, results: Results) -> None:
    """Print every seed, the medians, and the medians' differences from the first config."""
    title = "Mean over depth bins of the RMSE in metres"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("config")  # the only one to wrap, between words
    for name in ("seed", *GROUPS):
        table.add_column(name, justify="right", no_wrap=True)
    for name, runs in results.items():
        for seed, scores in runs.items():
            table.add_row(name, str(seed), *(f"{scores[group]:.3f}" for group in GROUPS))
    first, *others = results
    base = medians(results[first])
    for name in results:
        table.add_row(name, "median", *(f"{medians(results[name])[g]:.3f}" for g in GROUPS))
    for name in others:
        found = medians(results[name])
        changes = (f"{100 * (found[group] / base[group] - 1):+.0f} %" for group in GROUPS)
        table.add_row(f"{name} against {first}", "", *changes)
    console.print(table)


def medians(runs: Mapping[int, Scores]) -> Scores:
    """Return the median over seeds of every group.

    Example:
        >>> medians({0: {"few": 1.0}, 1: {"few": 5.0}, 2: {"few": 2.0}})
        {'few': 2.0}
    """
    scores = list(runs.values())
    return {group: statistics.median(run[group] for run in scores) for group in scores[0]}
