"""A running histogram of past batches' targets."""

from typing import Any

import torch
from torch import Tensor, nn

from depthbal.losses.batch.binning import Grid
from depthbal.losses.batch.groups import TargetGroups
from depthbal.losses.batch.merging import cell_groups
from depthbal.losses.double_buffers import DoubleBuffers

BINS = 1024


class LabelMemory(nn.Module):
    """The targets of past batches in 1,024 bins of count, mean and variance, fading with age.

    A batch that is k steps old counts by the power k of batches / (batches + 1), so that the whole
    past weighs as much as ``batches`` batches. The state is a buffer of constant size, saved and
    restored with the loss.

    Args:
        label_range: Ends (lo, hi) of the bins, label units; targets beyond count in the outermost.
        batches: The weight of the past in batches, positive.

    Example:
        >>> memory = LabelMemory((0.0, 10.0), batches=1)
        >>> memory.update(TargetGroups(*torch.tensor([[2.0], [5.0], [0.0]]).double()))
        >>> past = memory.groups()
        >>> past.counts.sum().item(), past.means[past.counts > 0].item()
        (1.0, 5.0)
    """

    def __init__(self, label_range: tuple[float, float], batches: float) -> None:
        super().__init__()
        low, high = label_range
        self.grid = Grid(low, (high - low) / BINS, BINS)
        self.decay = batches / (batches + 1)
        self._state = DoubleBuffers("moments", "ends")
        ends = torch.tensor([low, high], dtype=torch.float64)
        self._state.set(moments=torch.zeros(3, BINS), ends=ends)

    @property
    def moments(self) -> Tensor:
        """Count and moments per bin, (3, 1024)."""
        return self._state.get("moments")

    @property
    def is_empty(self) -> bool:
        """Whether it has met no target yet; stalls a GPU."""
        return not bool(self.moments[0].sum() > 0)

    def groups(self) -> TargetGroups:
        """Return the bins as groups, empty ones with a count of 0."""
        return cell_groups(self.grid, self.moments)

    def update(self, groups: TargetGroups) -> None:
        """Add a batch's targets and let all fade by one step."""
        with torch.no_grad():
            batch = self.grid.moments(groups.means, groups.counts, groups.variances, orders=2)
            # a new tensor: groups that were handed out are views of the old one
            self._state.set(
                moments=(self.moments + batch) * self.decay, ends=self._state.get("ends")
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        saved = state_dict.get(f"{prefix}_state.ends")
        own = self._state.get("ends")
        if saved is not None and not torch.equal(saved.to(own), own):
            errors: list[str] = args[-1]
            errors.append(
                f"the memory was saved with label_range {tuple(saved.tolist())}, this loss has "
                f"{tuple(own.tolist())}"
            )
