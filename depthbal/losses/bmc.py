"""Balanced MSE over the batch itself: BMC."""

import warnings

from torch import Tensor

from depthbal.losses.balanced import BalancedMSELoss, Scale
from depthbal.losses.batch_prior import batch_prior
from depthbal.losses.noise import NoiseKind, NoiseModule
from depthbal.losses.reduction import Reduction
from depthbal.priors import GaussianMixture


class BMCLoss(BalancedMSELoss):
    """Balanced MSE whose prior is the batch itself (BMC: batch-based Monte-Carlo).

        L = (p - y)^2 / (2 s^2) + log s sqrt(2 pi) + log (1/N) sum_j N(p; y_j, s^2)

    over the N valid targets y_j of the batch. Equal targets are merged, which is exact; many
    distinct ones are merged into narrow bins by count, mean and variance, so that the batch of a
    dense map is a few thousand groups instead of an N x N matrix. The mean over N of the published
    code's cross entropy is this value plus 2 s^2 log N.

    Args:
        init_noise_sigma: See ``GAILoss``.
        noise: See ``GAILoss``.
        scale: See ``GAILoss``.
        reduction: See ``GAILoss``.
        label_range: See ``GAILoss``.
        tolerance: See ``GAILoss``.

    A batch with fewer than two distinct targets says nothing about the label distribution: the
    gradient vanishes, and a warning, once, recommends ``GAILoss``.

    Source: Ren et al., CVPR 2022 (BMC: Monte-Carlo integration over the batch).

    Example:
        >>> import torch
        >>> loss = BMCLoss(init_noise_sigma=0.5)
        >>> round(loss(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.5])).item(), 4)
        -0.1687
    """

    def __init__(
        self,
        *,
        init_noise_sigma: float = 1.0,
        noise: NoiseKind | NoiseModule = "fixed",
        detach_noise: bool = True,
        scale: Scale = "mean",
        reduction: Reduction = "mean",
        event_dim: int = 0,
        label_range: tuple[float, float] | None = None,
        tolerance: float = 1e-5,
        mse_weight: float = 1.0,
        balance_weight: float = 1.0,
        memory_budget_mb: float = 256,
    ) -> None:
        super().__init__(
            init_noise_sigma=init_noise_sigma,
            noise=noise,
            detach_noise=detach_noise,
            scale=scale,
            reduction=reduction,
            event_dim=event_dim,
            label_range=label_range,
            tolerance=tolerance,
            mse_weight=mse_weight,
            balance_weight=balance_weight,
            memory_budget_mb=memory_budget_mb,
        )
        self._warned = False

    def prior_for(
        self, target: Tensor, mask: Tensor | None, sigma: Tensor
    ) -> GaussianMixture | None:
        """Return the batch's targets as a mixture; None where no target counts."""
        valid = target.flatten() if mask is None else target[mask]
        prior = batch_prior(valid, sigma.min())
        if (prior is None or len(prior.weights) < 2) and not self._warned:
            self._warned = True
            warnings.warn(
                "BMCLoss met a batch with fewer than 2 distinct targets, from which nothing can be "
                "balanced; GAILoss does not depend on the batch",
                stacklevel=2,
            )
        return prior
