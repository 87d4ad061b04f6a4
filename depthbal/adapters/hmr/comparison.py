"""The default command: plain and balanced regressors of synthetic people, one seed or several."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from depthbal.adapters.hmr.application import HMR
from depthbal.adapters.hmr.synthetic import write_synthetic
from depthbal.adapters.hmr.table import medians, print_comparison, print_medians, summary
from depthbal.errors import RunFolderError
from depthbal.priors.files import write_json
from depthbal.reports import write_report
from depthbal.training.compare import missing_work
from depthbal.training.runs import RunFolder, free_folder, require_claimable
from depthbal.training.train import train

METHODS = {"mse": "mse.yaml", "gai": "paper.yaml"}
"""What the default command compares."""
SYNTHETIC = {
    "--model.model.init_args.features": "64",
    "--model.prior_rows": "4000",
    "--data.batch_size": "32",
    "--data.num_workers": "0",
    "--data.mixing": "spin",
    "--trainer.devices": "1",
    "--trainer.enable_progress_bar": "false",
}
"""Where the default command differs from the published recipe: small data need more steps."""


def compare_synthetic(out: Path | None, configs: Path, seed: int = 0) -> None:
    """Train plain and balanced regressors on synthetic people and write table.json and report.html.

    Args:
        out: Empty or new folder; gets ``data``, the runs ``mse`` and ``gai``, table and report.
            None takes runs/hmr, or runs/hmr-2 and so on.
        configs: The folder of the presets.
        seed: Of people and trainings.

    Raises:
        RunFolderError: Something is there already.
    """
    out = out or free_folder(Path("runs"), "hmr")
    if out.is_dir() and any(out.iterdir()):
        raise RunFolderError(f"{out} exists and is not empty; choose another folder with --out")
    require_claimable(out)
    root = write_synthetic(out / "data", seed)
    runs = {name: out / name for name in METHODS}
    metrics = _train({run: _settings(configs, name, root, seed) for name, run in runs.items()})
    found = {name: metrics[run] for name, run in runs.items()}
    console = Console()
    print_comparison(console, found)
    table = {name: summary(content) for name, content in found.items()}
    _finish(console, out, table, list(runs.values()))


def compare_seeds(out: Path, configs: Path, seeds: Sequence[int], people: int = 0) -> None:
    """Compare with several trainings on the same people; medians in table.json, one report.

    A finished run of the same settings is read, not repeated; one that was cut off is continued.

    Args:
        out: Gets ``data-PEOPLE``, and for every seed the runs ``mse-SEED`` and ``gai-SEED`` and
            ``table-SEED.json``; table.json and report.html are of all.
        configs: The folder of the presets.
        seeds: Of the trainings.
        people: Seed of the people, which are the same in all of them, so that runs can be compared
            person by person.

    Raises:
        RunFolderError: A run there was made with other settings.
    """
    root = write_synthetic(out / f"data-{people}", people)
    runs = {name: {seed: out / f"{name}-{seed}" for seed in seeds} for name in METHODS}
    work = {
        folders[seed]: _settings(configs, name, root, seed)
        for seed in seeds
        for name, folders in runs.items()
    }
    metrics = _train(work)
    tables = {seed: {name: summary(metrics[runs[name][seed]]) for name in runs} for seed in seeds}
    for seed, table in tables.items():
        write_json(out / f"table-{seed}.json", table)
    console = Console()
    print_medians(console, list(tables.values()))
    every = [run for folders in runs.values() for run in folders.values()]
    _finish(console, out, medians(list(tables.values())), every)


def _settings(configs: Path, method: str, root: Path, seed: int) -> list[str]:
    """Return the arguments of one training."""
    common = [text for pair in SYNTHETIC.items() for text in pair]
    common += ["--data.root", str(root), "--seed_everything", str(seed), "--data.seed", str(seed)]
    return ["--config", str(configs / METHODS[method]), *common]


def _train(runs: Mapping[Path, Sequence[str]]) -> dict[Path, dict[str, Any]]:
    """Finish runs with these settings one after the other; return their results."""
    # all folders are checked before the first training
    work = {run: missing_work(run, settings, HMR) for run, settings in runs.items()}
    quiet = dataclasses.replace(HMR, show=lambda console, metrics: None)
    for arguments in work.values():
        if arguments:
            with one_thread():
                train(arguments, Path(), quiet)  # a config is among the arguments
    return {run: json.loads(RunFolder(run).metrics().read_text(encoding="utf-8")) for run in runs}


def _finish(console: Console, out: Path, table: dict[str, Any], runs: Sequence[Path]) -> None:
    """Write table.json and the report, and say where they are."""
    write_json(out / "table.json", table)
    report = write_report(runs, out / "report.html")
    for title, path in (("Table", out / "table.json"), ("Report", report)):
        console.print(f"{title}: {path}", highlight=False, soft_wrap=True)


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: steps this small wait for a second one longer than it helps them.

    On two cores that others use as well, the default command took 8 minutes with two threads and
    one with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
