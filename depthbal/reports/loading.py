"""Run folders read into results."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from depthbal.errors import ConfigError
from depthbal.reports.methods import method_key, run_names, seed_of, without_seed
from depthbal.reports.results import RunResult
from depthbal.reports.run_files import beside, metrics_files
from depthbal.reports.stored_numbers import read_numbers
from depthbal.reports.surroundings import noise_sigma, read_examples, read_surroundings

CheckpointName = Literal["last", "best"]


def load_results(
    runs: Sequence[str | Path], checkpoint: CheckpointName = "last"
) -> list[RunResult]:
    """Read the results of runs: each run's own, then those of balancing it afterwards.

    What is missing but not needed (examples, learning curves, the histogram, what an earlier
    version did not write) is said in ``gaps``.

    Args:
        runs: run folders that were evaluated.
        checkpoint: the last epoch's evaluation, or that of the best on the validation split.

    Raises:
        ConfigError: no run, or the same run twice.
        RunFolderError: a folder is incomplete or in the format of another version, a file is
            damaged or holds NaN, or per_image.npz does not belong to metrics.json.
    """
    paths = [Path(run) for run in runs]
    if not paths:
        raise ConfigError("expected one or more run folders, got none")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise ConfigError(f"the run {path} was named twice; name every run once")
    results: list[RunResult] = []
    for path, name in zip(paths, run_names(paths), strict=True):
        own, *afterwards = [load_result(file, name) for file in metrics_files(path, checkpoint)]
        fresh = [result for result in afterwards if _epochs(result) == _epochs(own)]
        stale = tuple(
            f"{result.file.name} is left out: it was evaluated after {_epochs(result)} epochs, "
            f"{own.file.name} after {_epochs(own)}"
            for result in afterwards
            if _epochs(result) != _epochs(own)
        )
        results += [replace(own, gaps=own.gaps + stale), *fresh]
    return results


def load_result(file: Path, name: str) -> RunResult:
    """Read one evaluation.

    Args:
        file: its metrics file.
        name: of the run.

    Raises:
        RunFolderError: as `load_results`.
    """
    numbers, gaps = read_numbers(file)
    protocol: dict[str, Any] = numbers["metrics"]["protocol"]
    around, more_gaps = read_surroundings(file.parent)
    examples, example_gaps = read_examples(beside(file, "examples", ".npz"), numbers["label"])
    settings = around.pop("settings")
    posthoc = (protocol.get("posthoc") or {}).get("noise_sigma")
    return RunResult(
        name=name if posthoc is None else f"{name}, balanced afterwards (sigma {posthoc:g})",
        path=file.parent,
        file=file,
        examples=examples,
        settings=without_seed(settings),
        method=method_key(without_seed(settings), protocol),
        seed=seed_of(settings, around["versions"]),
        noise_sigma=noise_sigma(settings, protocol, around["curves"]),
        posthoc=posthoc is not None,
        gaps=(*gaps, *more_gaps, *example_gaps),
        **numbers,
        **around,
    )


def _epochs(result: RunResult) -> Any:
    return result.metrics["protocol"].get("epochs")
