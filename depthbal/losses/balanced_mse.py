"""Balanced MSE over a prior that is known before training: GAI and BNI."""

import warnings
from typing import Any

import torch
from torch import Tensor

from depthbal.losses.balanced import BalancedMSELoss
from depthbal.losses.base import require_world
from depthbal.losses.buffers import PriorBuffers
from depthbal.priors import GaussianMixture, Histogram, load_prior

PriorSource = GaussianMixture | Histogram | str


class _StoredPriorLoss(BalancedMSELoss):
    """Balanced MSE over a prior that is known before training and saved with the loss."""

    prior_is_stored = True

    def __init__(
        self,
        prior: PriorSource | None = None,
        *,
        relative_to: str = "uniform",
        tau: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        require_world(relative_to, tau)
        self.relative_to, self.tau = relative_to, tau
        self.init_args |= {"relative_to": relative_to, "tau": tau}
        self._prior = PriorBuffers()
        if prior is not None:
            self.set_prior(load_prior(prior) if isinstance(prior, str) else prior)

    @property
    def prior(self) -> GaussianMixture | None:
        """The mixture in use, or None while it is unset."""
        return None if self._prior.is_unset else self._prior.mixture

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Estimate the prior from a histogram of training labels, or take a mixture.

        It warns of labels outside ``label_range``, where no read-out is. An empty histogram, labels
        of another dimension and a mixture without a closed form for ``relative_to`` and ``tau`` are
        a ValueError.
        """
        super().set_prior(prior)
        if isinstance(prior, Histogram):
            if self.label_range is not None:
                low, high = self.label_range
                outside = prior.counts[(prior.centers < low) | (prior.centers > high)].sum()
                if outside > 0:
                    warnings.warn(
                        f"{outside:,.0f} of the histogram's {prior.total:,.0f} labels lie outside "
                        f"label_range {low:g} to {high:g}, and the read-out never predicts such: "
                        "give the loss the range of the labels, or leave these labels out of "
                        "histogram and mask",
                        stacklevel=2,
                    )
            prior = self._estimate(prior.relative_to(self.relative_to, self.tau))
        elif (self.relative_to, self.tau) != ("uniform", 1.0):
            prior = prior.relative_to(self.relative_to, self.tau)  # type: ignore[arg-type]
        if prior.event_dim != self.event_dim:
            raise ValueError(
                f"expected a prior for event_dim={self.event_dim}, 0 for scalar labels and 1 for "
                f"vectors, got one with means {tuple(prior.means.shape)}"
            )
        self._prior.set_mixture(prior)

    def prior_for(self, target: Tensor, mask: Tensor | None, sigma: Tensor) -> GaussianMixture:
        """Return the stored prior; where it is unset, a ValueError."""
        return self._prior.mixture

    def _estimate(self, histogram: Histogram) -> GaussianMixture:
        """Return the mixture that stands for the histogram: here its bins."""
        return GaussianMixture.from_histogram(histogram)


class GAILoss(_StoredPriorLoss):
    """Balanced MSE with a Gaussian-mixture prior (GAI: Gaussian-mixture analytical integration).

        L = |p - y|^2 / (2 s^2) + D log s sqrt(2 pi) + log sum_k w_k N(p; mu_k, Sigma_k + s^2 I)

    Args:
        prior: p_train as a mixture, a histogram to fit one to, a file that either's ``save`` wrote,
            or None: then ``set_prior(histogram)`` or ``load_state_dict`` must give it before use.
        n_components: Components that ``set_prior`` fits to a histogram; 16 for depth in the paper.
        relative_to: The world to balance for, where the prior is a histogram: ``"uniform"`` in the
            label, ``"log_uniform"``, ``"exp_uniform"`` (for labels that are logarithms), or a file
            that ``Histogram.save`` wrote; see ``Histogram.relative_to``.
        tau: Share of the balancing: 1 is all of it; 0 is none, which is MSE once it is read out.
        options: Those of ``BalancedMSELoss``, as keywords.

    The value can be negative: it is a log-likelihood ratio.

    Source: Ren et al., CVPR 2022 (GAI; Theorem 1 in closed form). ``noise="depth"``,
    ``relative_to`` and ``tau`` go beyond the paper.

    Example:
        >>> loss = GAILoss(GaussianMixture([0.9, 0.1], [2.0, 6.0], [1.0, 4.0]))
        >>> preds = torch.tensor([2.0, 5.0], requires_grad=True)
        >>> value = loss(preds, torch.tensor([2.1, 6.0]))
        >>> value.backward()
        >>> round(value.item(), 4), [round(g, 4) for g in preds.grad.tolist()]
        (-2.1627, [-0.0888, -1.8603])
    """

    def __init__(
        self, prior: PriorSource | None = None, *, n_components: int = 16, **options: Any
    ) -> None:
        self.n_components = n_components
        super().__init__(prior, **options)
        self.init_args["n_components"] = n_components

    def _estimate(self, histogram: Histogram) -> GaussianMixture:
        sigma = self.noise(torch.tensor(histogram.mean, dtype=torch.float64))
        return GaussianMixture.fit(histogram, self.n_components, noise_sigma=sigma.item())


class BNILoss(_StoredPriorLoss):
    """Balanced MSE with a histogram prior (BNI: bin-based numerical integration).

        L = -log f(p - y) + log sum_b w_b f(p - c_b),  f = N(0, s^2)

    with the bins' centres c_b and shares w_b. Bins should be narrow beside s.

    Args:
        prior: Histogram of training labels, the bins as a mixture of point masses, a file that
            either's ``save`` wrote, or None (see ``GAILoss``).
        options: ``relative_to`` and ``tau`` as for ``GAILoss``, and those of ``BalancedMSELoss``.

    Source: Ren et al., CVPR 2022 (BNI: numerical integration over histogram bins).

    Example:
        >>> loss = BNILoss(Histogram([0.0, 1.0, 2.0, 3.0], [8, 1, 1]))
        >>> round(loss(torch.tensor([1.0]), torch.tensor([1.5])).item(), 4)
        -0.1306
    """
