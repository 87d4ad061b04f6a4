"""Balancing a trained network's predictions afterwards, with the histogram its run has kept."""

import math
from pathlib import Path

from torch import nn

from depthbal.errors import ConfigError, RunFolderError
from depthbal.losses import BMCLoss, BNILoss, GAILoss, ReweightedLoss
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import Histogram

HISTOGRAM_FILE = "histogram.json"
"""Where a run folder keeps the training labels' histogram."""

BALANCED = (GAILoss, BNILoss, BMCLoss, ReweightedLoss)


def is_balanced(criterion: nn.Module | None) -> bool:
    """Whether a loss balances by itself, so that its network must not be balanced afterwards.

    Example:
        >>> from depthbal.losses import MSELoss
        >>> is_balanced(GAILoss()), is_balanced(MSELoss()), is_balanced(nn.L1Loss())
        (True, False, False)
    """
    return isinstance(criterion, BALANCED)


def require_sigma(noise_sigma: float) -> None:
    """Raise a ConfigError unless a sigma to balance with afterwards is positive and finite."""
    if not (math.isfinite(noise_sigma) and noise_sigma > 0):
        raise ConfigError(
            f"expected a positive sigma in metres to balance with afterwards, got {noise_sigma}; "
            "the network's RMSE on the validation split is a good choice"
        )


def posthoc_balance(
    checkpoint: Path,
    criterion: nn.Module | None,
    noise_sigma: float,
    label_range: tuple[float, float] | None,
) -> BalanceMap:
    """Return the map that balances the raw predictions of a run's checkpoint.

    It is exact for networks trained with the squared error, which predict mean depths; for other
    plain losses, such as the absolute error, it takes their predictions for mean depths.

    Args:
        checkpoint: RUN/checkpoints/NAME.ckpt; RUN holds histogram.json.
        criterion: The loss that the network was trained with.
        noise_sigma: Noise scale in metres, about the network's typical error.
        label_range: (lowest, highest) metres; None takes the histogram's ends.

    Raises:
        ConfigError: The loss balances already, the run has no histogram, or sigma is not positive.
        RunFolderError: The histogram is damaged.
    """
    require_sigma(noise_sigma)
    if is_balanced(criterion):
        raise ConfigError(
            f"the network of {checkpoint} was trained with {type(criterion).__name__}, which "
            "balances already; only networks of plain losses such as MSELoss are balanced "
            "afterwards, leave the sigma out"
        )
    file = checkpoint.parent.parent / HISTOGRAM_FILE
    if not file.is_file():
        raise ConfigError(
            f"{checkpoint} cannot be balanced afterwards: there is no {file} with the training "
            "depths' histogram; name a run folder that has one"
        )
    try:
        histogram = Histogram.load(file)
        ends = (float(histogram.edges[0]), float(histogram.edges[-1]))
        return BalanceMap(histogram, noise_sigma, label_range or ends)
    except (KeyError, TypeError, ValueError) as error:
        raise RunFolderError(f"{file} cannot be used as a prior: {error}") from error
