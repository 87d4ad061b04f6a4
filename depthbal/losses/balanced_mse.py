"""Balanced MSE (Ren et al., CVPR 2022): one loss, three estimators of its prior.

    L(p, y) = (p - y)^2 / (2 sigma^2) + log sigma sqrt(2 pi) + log E(p)

with the evidence log E(p) = log sum_k w_k N(p; mu_k, v_k + sigma^2). GAI describes p_train by a
Gaussian mixture fitted once, BNI by the bins of a histogram, BMC by the batch's own targets.
"""

import math
import os
import warnings
from abc import abstractmethod
from typing import Literal

from torch import Tensor, nn

from depthbal.losses.base import RegressionLoss
from depthbal.losses.batch_prior import batch_prior
from depthbal.losses.evidence import log_evidence
from depthbal.losses.noise import FixedNoise, LearnedNoise
from depthbal.losses.prior_buffers import PriorBuffers
from depthbal.losses.readout import truncated_normal_mean
from depthbal.losses.reduction import Reduction
from depthbal.priors import GaussianMixture, Histogram

NoiseKind = Literal["fixed", "learned"]
Scale = Literal["mean", "none"]
PriorSource = GaussianMixture | str


class BalancedMSELoss(RegressionLoss):
    """Balanced MSE over any prior; use ``GAILoss``, ``BNILoss`` or ``BMCLoss``."""

    def __init__(
        self,
        *,
        init_noise_sigma: float,
        noise: NoiseKind,
        scale: Scale,
        reduction: Reduction,
        label_range: tuple[float, float] | None,
        tolerance: float,
    ) -> None:
        super().__init__(label_range=label_range, reduction=reduction)
        if noise not in ("fixed", "learned"):
            raise ValueError(f"expected noise fixed or learned, got {noise!r}")
        if scale not in ("mean", "none"):
            raise ValueError(f"expected scale mean or none, got {scale!r}")
        self.noise = (FixedNoise if noise == "fixed" else LearnedNoise)(init_noise_sigma)
        self.scale = scale
        self.tolerance = tolerance
        self.init_args = {
            "init_noise_sigma": init_noise_sigma,
            "noise": noise,
            "scale": scale,
            "reduction": reduction,
            "label_range": label_range,
            "tolerance": tolerance,
        }

    @abstractmethod
    def prior_for(self, target: Tensor, mask: Tensor | None) -> GaussianMixture | None:
        """Return p_train as known for this batch; None where no target counts."""

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return L(p, y) of every entry, in units of the squared error with ``scale="mean"``."""
        sigma: Tensor = self.noise().to(preds)
        prior = self.prior_for(target, mask)
        if prior is None:
            return preds * 0 + sigma * 0
        values = (preds - target) ** 2 / (2 * sigma**2) + sigma.log() + 0.5 * math.log(2 * math.pi)
        values = values + log_evidence(preds, prior, sigma, tolerance=self.tolerance)
        return values * (2 * sigma.detach() ** 2) if self.scale == "mean" else values

    def readout(self, preds: Tensor) -> Tensor:
        """Return the balanced prediction: the truncated-normal mean on ``label_range``.

        Without a label range the balanced world is the whole line and ``preds`` is returned.
        """
        if self.label_range is None:
            return preds
        return truncated_normal_mean(preds, self.noise().detach(), self.label_range)

    def noise_parameters(self) -> list[nn.Parameter]:
        """Return log sigma where it is learned."""
        return list(self.noise.parameters())

    @property
    def noise_sigma(self) -> Tensor:
        """The current noise scale in label units, detached, shape ()."""
        sigma: Tensor = self.noise().detach()
        return sigma


class _StoredPriorLoss(BalancedMSELoss):
    """Balanced MSE over a prior that is known before training and saved with the loss."""

    def __init__(
        self,
        prior: PriorSource | Histogram | None,
        init_noise_sigma: float,
        noise: NoiseKind,
        scale: Scale,
        reduction: Reduction,
        label_range: tuple[float, float] | None,
        tolerance: float,
    ) -> None:
        super().__init__(
            init_noise_sigma=init_noise_sigma,
            noise=noise,
            scale=scale,
            reduction=reduction,
            label_range=label_range,
            tolerance=tolerance,
        )
        self._prior = PriorBuffers()
        if prior is not None:
            self.set_prior(self._load(prior) if isinstance(prior, str) else prior)

    @property
    def prior(self) -> GaussianMixture | None:
        """The mixture in use, or None while it is unset."""
        return None if self._prior.is_unset else self._prior.mixture

    @property
    def needs_prior(self) -> bool:  # type: ignore[override]
        """Whether ``set_prior`` must still be called."""
        return self._prior.is_unset

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Estimate the prior from a histogram of training labels, or take it as it is.

        Raises:
            ValueError: An empty histogram, or a mixture of vectors.
        """
        mixture = self._estimate(prior) if isinstance(prior, Histogram) else prior
        if mixture.event_dim:
            size = mixture.means.shape[1]
            raise ValueError(f"expected a prior of scalar labels, got vectors of dimension {size}")
        self._prior.set_mixture(mixture)

    def prior_for(self, target: Tensor, mask: Tensor | None) -> GaussianMixture:
        """Return the stored prior.

        Raises:
            ValueError: It is unset.
        """
        return self._prior.mixture

    @abstractmethod
    def _estimate(self, histogram: Histogram) -> GaussianMixture:
        """Return the mixture that stands for the histogram."""

    @staticmethod
    @abstractmethod
    def _load(path: str | os.PathLike[str]) -> GaussianMixture | Histogram:
        """Read a saved prior."""


class GAILoss(_StoredPriorLoss):
    """Balanced MSE with a Gaussian-mixture prior (GAI: Gaussian-mixture analytical integration).

        L = (p - y)^2 / (2 s^2) + log s sqrt(2 pi) + log sum_k w_k N(p; mu_k, v_k + s^2)

    Args:
        prior: p_train as a mixture, a file that ``GaussianMixture.save`` wrote, or None: then
            ``set_prior(histogram)`` or ``load_state_dict`` must give it before use.
        init_noise_sigma: (Initial) noise scale s in label units.
        noise: ``"fixed"`` or ``"learned"`` (log s is a parameter, bounded to [1e-3, 1e3]).
        n_components: Components that ``set_prior`` fits to a histogram; 16 for depth in the paper.
        scale: ``"mean"`` multiplies by the detached 2 s^2, as published, so that the value compares
            with the squared error; ``"none"`` leaves the log-likelihood.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range, for the read-out.
        tolerance: Largest error of the tabulated evidence in float32; float64 is always exact.

    Shapes: preds, target, mask of one shape, any; the result is a scalar unless ``reduction`` is
    ``"none"``. The value can be negative: it is a log-likelihood ratio.

    Source: Ren et al., CVPR 2022 (GAI; the evidence of Theorem 1 in closed form).

    Example:
        >>> import torch
        >>> loss = GAILoss(GaussianMixture([0.9, 0.1], [2.0, 6.0], [1.0, 4.0]))
        >>> preds = torch.tensor([2.0, 5.0], requires_grad=True)
        >>> value = loss(preds, torch.tensor([2.1, 6.0]))
        >>> value.backward()
        >>> round(value.item(), 4), [round(g, 4) for g in preds.grad.tolist()]
        (-2.1627, [-0.0888, -1.8603])
    """

    def __init__(
        self,
        prior: PriorSource | None = None,
        *,
        init_noise_sigma: float = 1.0,
        noise: NoiseKind = "fixed",
        n_components: int = 16,
        scale: Scale = "mean",
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        self.n_components = n_components
        super().__init__(prior, init_noise_sigma, noise, scale, reduction, label_range, tolerance)
        self.init_args["n_components"] = n_components

    def _estimate(self, histogram: Histogram) -> GaussianMixture:
        return GaussianMixture.fit(histogram, self.n_components)

    _load = staticmethod(GaussianMixture.load)


class BNILoss(_StoredPriorLoss):
    """Balanced MSE with a histogram prior (BNI: bin-based numerical integration).

        L = (p - y)^2 / (2 s^2) + log s sqrt(2 pi) + log sum_b w_b N(p; c_b, s^2)

    with the bins' centres c_b and shares w_b. Bins should be narrow beside s.

    Args:
        prior: Histogram of training labels, the bins as a mixture of point masses, a file that
            ``Histogram.save`` wrote, or None (see ``GAILoss``).
        init_noise_sigma: See ``GAILoss``.
        noise: See ``GAILoss``.
        scale: See ``GAILoss``.
        reduction: See ``GAILoss``.
        label_range: See ``GAILoss``.
        tolerance: See ``GAILoss``.

    Source: Ren et al., CVPR 2022 (BNI: numerical integration over histogram bins).

    Example:
        >>> import torch
        >>> loss = BNILoss(Histogram([0.0, 1.0, 2.0, 3.0], [8, 1, 1]))
        >>> round(loss(torch.tensor([1.0]), torch.tensor([1.5])).item(), 4)
        -0.1306
    """

    def __init__(
        self,
        prior: PriorSource | Histogram | None = None,
        *,
        init_noise_sigma: float = 1.0,
        noise: NoiseKind = "fixed",
        scale: Scale = "mean",
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(prior, init_noise_sigma, noise, scale, reduction, label_range, tolerance)

    def _estimate(self, histogram: Histogram) -> GaussianMixture:
        return GaussianMixture.from_histogram(histogram)

    _load = staticmethod(Histogram.load)


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
        noise: NoiseKind = "fixed",
        scale: Scale = "mean",
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        tolerance: float = 1e-5,
    ) -> None:
        super().__init__(
            init_noise_sigma=init_noise_sigma,
            noise=noise,
            scale=scale,
            reduction=reduction,
            label_range=label_range,
            tolerance=tolerance,
        )
        self._warned = False

    def prior_for(self, target: Tensor, mask: Tensor | None) -> GaussianMixture | None:
        """Return the batch's targets as a mixture; None where no target counts."""
        valid = target.flatten() if mask is None else target[mask]
        prior = batch_prior(valid, self.noise_sigma)
        if (prior is None or len(prior.weights) < 2) and not self._warned:
            self._warned = True
            warnings.warn(
                "BMCLoss met a batch with fewer than 2 distinct targets, from which nothing can be "
                "balanced; GAILoss does not depend on the batch",
                stacklevel=2,
            )
        return prior
