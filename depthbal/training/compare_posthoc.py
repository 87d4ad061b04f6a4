"""Plain losses balanced afterwards: the rows of a comparison that cost no training."""

import json
import logging
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from depthbal.afterwards import is_balanced
from depthbal.errors import CheckpointError
from depthbal.predictor import load_predictor
from depthbal.training.evaluate import evaluate_run
from depthbal.training.posthoc import rounded
from depthbal.training.precision import default_device
from depthbal.training.runs import RunFolder

Runs = Mapping[str, Mapping[int, Path]]
log = logging.getLogger(__name__)


def posthoc_rows(runs: Runs, sigma: float | None = None) -> dict[str, dict[str, dict[int, Path]]]:
    """Balance every finished run of a plain loss afterwards and evaluate it.

    Args:
        runs: Per config name and seed the run folder.
        sigma: Noise scale in metres; None takes those of the comparison's balanced runs, the median
            over seeds where it is learned, and makes a row for each.

    Returns:
        Per name of a plain loss and per name of its row the metrics file of every seed.
    """
    criteria = {name: [_criterion(run) for run in seeds.values()] for name, seeds in runs.items()}
    plain = [
        name
        for name, losses in criteria.items()
        if not any(loss is None or is_balanced(loss) for loss in losses)
    ]
    sigmas = balanced_sigmas(criteria.values()) if sigma is None else [sigma]
    if plain and not sigmas:
        log.info(
            "No run of this comparison has one sigma to balance %s with afterwards; give "
            "--posthoc SIGMA to have that row",
            ", ".join(plain),
        )
    return {
        name: {
            f"{name}, balanced afterwards (sigma {value:g})": {
                seed: posthoc_metrics(run, value) for seed, run in runs[name].items()
            }
            for value in sigmas
        }
        for name in plain
    }


def balanced_sigmas(criteria: Iterable[list[nn.Module | None]]) -> list[float]:
    """Return the different noise scales of the balanced losses, increasing.

    Args:
        criteria: Per config its loss of every seed. The median over seeds counts; losses without
            one sigma for all predictions are left out.

    Example:
        >>> from depthbal.losses import BMCLoss, GAILoss, MSELoss
        >>> losses = [GAILoss(init_noise_sigma=sigma) for sigma in (0.5, 0.6, 0.9)]
        >>> balanced_sigmas([[MSELoss()], losses, [BMCLoss(noise="depth")]])
        [0.6]
    """
    found = set()
    for losses in criteria:
        scales = [getattr(loss, "noise_sigma", None) for loss in losses if is_balanced(loss)]
        known = [float(scale) for scale in scales if scale is not None]
        if known:
            found.add(rounded(statistics.median(known)))
    return sorted(found)


def posthoc_metrics(run: Path, sigma: float) -> Path:
    """Return a run's metrics file of balancing afterwards, evaluating where it is not there yet."""
    folder = RunFolder(run)
    path = folder.metrics(posthoc_sigma=sigma)
    if not path.is_file() or _evaluated(path) != _evaluated(folder.metrics()):
        evaluate_run(run, posthoc=sigma, device=default_device())
    return path


def _evaluated(metrics: Path) -> tuple[Any, Any]:
    """Return after how many epochs, and on which data, a run was evaluated."""
    protocol = json.loads(metrics.read_text(encoding="utf-8"))["protocol"]
    return protocol["epochs"], protocol["data"]


def _criterion(run: Path) -> nn.Module | None:
    """Return the trained loss of a run; None for one of a class that is not ours."""
    try:
        return load_predictor(run).criterion
    except CheckpointError as error:
        log.info("%s is not balanced afterwards: %s", run, error)
        return None
