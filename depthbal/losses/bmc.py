"""Balanced MSE over the batch itself: BMC."""

import math
import warnings
from typing import Any, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn

from depthbal.losses.balanced import BalancedMSELoss
from depthbal.losses.base import require_one_of
from depthbal.losses.batch import Grid, Method, TargetGroups, batch_prior
from depthbal.losses.buffers import DoubleBuffers
from depthbal.losses.families import GaussianFamily, LaplaceFamily
from depthbal.losses.family import MAX_GRID
from depthbal.priors import GaussianMixture, World

MEMORY_BINS = 1024
# Labels times masses above which a step without a table is slow, and masses above which one sigma
# can be too small for a table.
SLOW_PAIRS, MANY_GROUPS = 1e9, 2**15
# What a table of noise that follows the prediction costs per sigma of the range: so many labels.
TABLE_ROWS = 500


class BMCLoss(BalancedMSELoss):
    """Balanced MSE whose prior is the batch itself (BMC: batch-based Monte-Carlo).

        L = -log f(p - y) + log (1/N) sum_j f(p - y_j),  f = N(0, s^2 I)

    over the N valid targets y_j of the batch, merged into groups so that a dense map costs a
    thousand or two of them instead of an N x N matrix. The published cross entropy is this value
    plus 2 s^2 log N. Labels beyond the range have their share of the training labels in it, not
    that of the batch: ``set_prior(histogram)`` must tell it.

    Args:
        method: How targets become groups. ``"exact"``: each its own. ``"grouped"``: equal ones
            (equal vectors) merged, which changes nothing; 8-bit depth has at most 256.
            ``"binned"``: scalars merged into narrow bins by count, mean and variance. ``"auto"``:
            binned in float32 where there are more than 512 scalars, otherwise grouped; in float64
            binned, within 1e-9, only where the distinct targets are too many to be summed.
        memory: The weight of past batches in the prior, in batches, or None for this batch alone. A
            small batch holds no far targets; with ``memory=20`` the prior is that of the last 20 or
            so as well, as a running histogram over ``label_range`` in 1,024 bins. It learns while
            the loss is in training mode and gradients are recorded, and is saved with the loss.
        relative_to: The world to balance for: ``"uniform"`` in the label, ``"log_uniform"`` for
            positive labels, ``"exp_uniform"``; see ``Histogram.relative_to``.
        gather: Whether the prior is that of the targets on all ranks of a process group, while
            gradients are recorded. All ranks must then call the loss equally often.
        options: Those of ``BalancedMSELoss``, as keywords. Its ``tolerance`` is the largest error
            of log E in float32: of its table, and of the bins, which keep to it for predictions
            with a target within 6 sigma, and relative to log E up to 1,000 sigma.

    A batch with fewer than two distinct targets says nothing about the label distribution: the
    gradient vanishes, and a warning, once, recommends ``GAILoss``. For half a million distinct
    labels a step takes minutes where sigma is far below a thousandth of their range, or where noise
    of another family than the Gaussian follows the prediction, and seconds where Gaussian noise
    that does is below a hundredth of the range: a warning, once, says so, too.

    Source: Ren et al., CVPR 2022 (BMC: Monte-Carlo integration over the batch). Groups, ``memory``
    and ``gather`` go beyond the paper.

    Example:
        >>> loss = BMCLoss(init_noise_sigma=0.5)
        >>> round(loss(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.5])).item(), 4)
        -0.1687
    """

    def __init__(
        self,
        *,
        method: Method = "auto",
        memory: float | None = None,
        relative_to: World = "uniform",
        gather: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_one_of("method", method, ("auto", "exact", "grouped", "binned"))
        if self.event_dim and (method == "binned" or memory is not None):
            raise ValueError(
                "expected method auto, exact or grouped and memory=None for vectors (event_dim=1): "
                "bins are those of scalars"
            )
        require_one_of("relative_to", relative_to, get_args(World))
        if self.event_dim and relative_to != "uniform":
            raise ValueError('expected relative_to "uniform" for vectors (event_dim=1)')
        self.method, self.gather, self.relative_to = method, gather, relative_to
        if memory is not None and not 0 < memory < math.inf:
            raise ValueError(f"expected memory as a positive number of batches, got {memory}")
        self._batches = memory
        self.memory: LabelMemory | None = None
        if self.label_range is not None:
            self.set_label_range(self.label_range)
        self.init_args |= {"method": method, "memory": memory}
        self.init_args |= {"relative_to": relative_to, "gather": gather}
        self._warned: set[str] = set()
        self._recording = False
        self._beyond_range: Tensor | None = None

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Take the ends (lo, hi) of the label range, and of an empty memory's histogram."""
        super().set_label_range(label_range)
        if self._batches is not None:
            self.memory = LabelMemory(label_range, self._batches)

    def reduced(
        self, preds: Tensor, target: Tensor, mask: Tensor | None, beyond: Tensor | None = None
    ) -> Tensor:
        """Return the reduced loss; see ``BalancedMSELoss``."""
        self._beyond_range = beyond
        # The rule of ``sum_over_ranks``: what is summed over ranks there is gathered here.
        differentiable = preds.requires_grad or bool(self.noise_parameters())
        self._recording = torch.is_grad_enabled() and differentiable
        return super().reduced(preds, target, mask, beyond)

    def prior_for(self, target: Tensor, mask: Tensor | None, sigma: Tensor) -> GaussianMixture:
        """Return the targets of this batch, of all ranks and of the memory as a mixture."""
        if self._batches is not None and self.memory is None:
            raise ValueError("expected memory with label_range=(lo, hi), the ends of its histogram")
        joint = self.gather and self._recording and dist.is_available() and dist.is_initialized()
        if self._beyond_range is not None:  # whose targets are none
            near = ~self._beyond_range.view_as(target)
            mask = near if mask is None else mask & near
        groups, extent = batch_prior(
            target,
            mask,
            sigma,
            method=self.method,
            tolerance=self.tolerance,
            event_dim=self.event_dim,
            family=self.family,
            over_ranks=joint and dist.get_world_size() > 1,
        )
        one_target = extent.counted and not extent.low < extent.high
        if one_target and (self.memory is None or self.memory.is_empty):
            self._warn_once(
                "BMCLoss met a batch with fewer than 2 distinct targets, from which nothing can be "
                "balanced; GAILoss does not depend on the batch"
            )
        cells = (extent.high - extent.low) / self.family.cell_width(extent.sigma, self.tolerance)
        tiny = cells > MAX_GRID / 4 and len(groups.counts) > MANY_GROUPS
        slow = bool(sigma.ndim) or (tiny and not isinstance(self.family, LaplaceFamily))
        rows = float(extent.labels)
        if sigma.ndim and isinstance(self.family, GaussianFamily):  # which is a table
            rows = min(rows, TABLE_ROWS * (extent.high - extent.low) / extent.sigma)
        if slow and rows * len(groups.counts) > SLOW_PAIRS:
            self._warn_once(
                f"BMCLoss with {extent.labels:,} labels that reach from {extent.low:g} to "
                f"{extent.high:g}, a noise scale of {extent.sigma:.2g} and family "
                f"{self.init_args['family']!r} takes seconds to minutes per step: use one sigma, "
                "near the error of the network in label units, or BNILoss"
            )
        if self.memory is not None:
            past = self.memory.groups()
            if self.training and self._recording and extent.counted:
                self.memory.update(groups)
            groups = TargetGroups(*(torch.cat(parts) for parts in zip(groups, past, strict=True)))
        if not (extent.counted or (self.memory and not self.memory.is_empty)):
            # No label counts. Any prior serves, and the loss still takes part in the ranks' sums.
            nothing = [part.new_zeros(1, *part.shape[1:]) for part in groups[1:]]
            groups = TargetGroups(nothing[0].new_ones(1), *nothing)
        counts, means, variances = _relative_to(self.relative_to, groups)
        return self.family.prior_of(counts / counts.sum(), means, variances)

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(message, stacklevel=3)


def _relative_to(world: str, groups: TargetGroups) -> TargetGroups:
    """Return what groups weigh against a world: y per label where it is 1 / y, e^-y where e^y."""
    counts, means, variances = groups
    if world == "log_uniform":
        if counts.device.type == "cpu" and bool((means[counts > 0] <= 0).any()):
            raise ValueError("log_uniform needs positive targets: mask the others out")
        means = torch.where(counts > 0, means, 1)
        return TargetGroups(counts * means, means + variances / means, variances)
    if world == "exp_uniform":
        lowest = torch.where(counts > 0, means, math.inf).min()
        factors = torch.exp((lowest - means + variances / 2).clamp(max=0) * (counts > 0))
        return TargetGroups(counts * factors, means - variances, variances)
    return groups


class LabelMemory(nn.Module):
    """The targets of past batches in 1,024 bins of count, mean and variance, fading with age.

    A batch that is k steps old counts by the power k of batches / (batches + 1), so that the whole
    past weighs as much as ``batches``.
    """

    def __init__(self, label_range: tuple[float, float], batches: float) -> None:
        super().__init__()
        low, high = label_range
        self.grid = Grid(low, (high - low) / MEMORY_BINS, MEMORY_BINS)
        self.decay = batches / (batches + 1)
        self._state = DoubleBuffers("moments", "ends")
        self._state.set(torch.zeros(3, MEMORY_BINS), torch.tensor([low, high]).double())

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
        moments = self.moments
        return self.grid.groups(torch.arange(MEMORY_BINS, device=moments.device), moments)

    def update(self, groups: TargetGroups) -> None:
        """Add a batch's targets and let all fade by one step."""
        with torch.no_grad():
            batch = self.grid.moments(groups.means, groups.counts, groups.variances)
            # a new tensor: groups that were handed out are views of the old one
            self._state.set((self.moments + batch) * self.decay, self._state.get("ends"))

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
