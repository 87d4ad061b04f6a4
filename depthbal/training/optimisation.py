"""Parameter groups: weights follow the schedule, the noise scale keeps its own learning rate."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import Optimizer

NOISE_GROUP = "noise"


def parameter_groups(
    parameters: Iterable[nn.Parameter], noise: Iterable[nn.Parameter], noise_lr: float
) -> list[dict[str, Any]]:
    """Split trainable parameters into the weights and the noise scale.

    Sigma is one number that has to travel some tenths of a metre whatever the network's learning
    rate is: it gets its own rate, no weight decay and, by `hold_noise_lr`, no schedule.

    Args:
        parameters: All parameters; frozen ones are left out.
        noise: The parameters of the noise scale among them; may be empty.
        noise_lr: Learning rate of the noise scale, in its own (log) units.

    Example:
        >>> import torch
        >>> weight, sigma = (nn.Parameter(torch.zeros(1)) for _ in range(2))
        >>> [group["name"] for group in parameter_groups([weight, sigma], [sigma], 0.01)]
        ['weights', 'noise']
    """
    noise = list(noise)
    own = {id(parameter) for parameter in noise}
    weights = [p for p in parameters if p.requires_grad and id(p) not in own]
    groups: list[dict[str, Any]] = [{"params": weights, "name": "weights"}]
    if noise:
        groups.append({"params": noise, "name": NOISE_GROUP, "lr": noise_lr, "weight_decay": 0.0})
    return [group for group in groups if group["params"]]


def hold_noise_lr(optimizer: Optimizer, noise_lr: float) -> None:
    """Undo what a schedule did to the learning rate of the noise scale."""
    for group in optimizer.param_groups:
        if group.get("name") == NOISE_GROUP:
            group["lr"] = noise_lr
