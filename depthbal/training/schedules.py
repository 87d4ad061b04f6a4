"""Learning-rate schedules that adapt to the length of the training."""

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class WarmupCosine(LRScheduler):
    """Linear warm-up followed by a cosine decay over exactly the steps that the training has.

    With w = max(1, round(warmup_share * total_steps)) every group's initial learning rate is
    multiplied by (step + 1) / (w + 1) while step < w, then by
    final + (1 - final) (1 + cos(pi (step - w) / (total_steps - w))) / 2. The task sets the steps
    when training starts: resuming with more epochs continues on the longer curve.

    Args:
        optimizer: Its groups' initial learning rates are the peaks.
        warmup_share: Share of all steps that the rise takes.
        final: Learning rate at the end, as a share of the peak.
        total_steps: Optimizer steps of the whole training; the task replaces it.

    Raises:
        ValueError: A share outside [0, 1].

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
        >>> schedule = WarmupCosine(optimizer, warmup_share=0.1)
        >>> schedule.set_total_steps(11)
        >>> optimizer.param_groups[0]["lr"]
        1.0
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_share: float = 0.1,
        final: float = 0.0,
        total_steps: int = 1000,
    ) -> None:
        if not (0.0 <= warmup_share <= 1.0 and 0.0 <= final <= 1.0):
            raise ValueError(
                f"expected warmup_share and final in [0, 1], got {warmup_share} and {final}"
            )
        self.warmup_share, self.final, self.total_steps = warmup_share, final, total_steps
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """Return the learning rate of every group at the current step."""
        step, warmup = self.last_epoch, max(1, round(self.warmup_share * self.total_steps))
        if step < warmup:
            factor = (step + 1) / (warmup + 1)
        else:
            progress = min(1.0, (step - warmup) / max(1, self.total_steps - warmup))
            factor = self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * progress))
        return [base * factor for base in self.base_lrs]

    def set_total_steps(self, total_steps: int) -> None:
        """Set the length of the training, and the learning rate of the current step with it."""
        self.total_steps = total_steps
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def state_dict(self) -> dict[str, Any]:
        """Return the state without the length, which belongs to the training at hand."""
        return {key: value for key, value in super().state_dict().items() if key != "total_steps"}
