"""Re-weighting: errors weighted by how rare their label was in training."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from depthbal.losses.base import RegressionLoss, require_one_of
from depthbal.losses.baselines import ErrorKind
from depthbal.losses.buffers import DoubleBuffers
from depthbal.losses.label_weights import Smoothing, Weighting, bin_per_label, label_weights
from depthbal.priors import GaussianMixture, Histogram


class ReweightedLoss(RegressionLoss):
    """Squared or absolute error times a weight that grows with the rarity of the label.

        w(y) (p - y)^2  or  w(y) |p - y|,  w = ``label_weights`` of the training histogram

    The classical answer to imbalance and a baseline for Balanced MSE: inverse frequency, its square
    root, clipped counts, and LDS, which smooths the counts over neighbouring bins. Weights average
    to 1 over the training labels, so that the value compares with the unweighted error. The mean is
    over the entries that count, not over their weights.

    Args:
        prior: Histogram of the training labels, a file that ``Histogram.save`` wrote, or None: then
            ``set_prior(histogram)`` or ``load_state_dict`` must give it before use.
        error: ``"squared"`` or ``"absolute"``.
        weighting, clip, smoothing, kernel_size, kernel_sigma: See ``label_weights``.
        options: ``reduction`` and ``label_range`` of ``RegressionLoss``.

    Source: Yang et al., Delving into Deep Imbalanced Regression, ICML 2021.

    Example:
        >>> loss = ReweightedLoss(Histogram([0.0, 1.0, 2.0], [6, 2]))
        >>> round(loss(torch.tensor([1.5, 1.5]), torch.tensor([0.5, 1.5])).item(), 4)
        0.3333
    """

    def __init__(
        self,
        prior: Histogram | str | None = None,
        *,
        error: ErrorKind = "squared",
        weighting: Weighting = "inverse",
        clip: tuple[float, float] | None = None,
        smoothing: Smoothing | None = None,
        kernel_size: int = 5,
        kernel_sigma: float = 2.0,
        **options: Any,
    ) -> None:
        super().__init__(event_dim=0, **options)
        require_one_of("error", error, ("squared", "absolute"))
        self.error = error
        self._weights_of = partial(
            label_weights,
            weighting=weighting,
            clip=clip,
            smoothing=smoothing,
            kernel_size=kernel_size,
            kernel_sigma=kernel_sigma,
        )
        self.init_args |= {"error": error, **self._weights_of.keywords}
        # Wrong arguments are reported now and not when the histogram comes.
        self._weights_of(Histogram([0.0, 1.0], [1.0]))
        self._prior = DoubleBuffers("edges", "counts", "weights")
        if prior is not None:
            self.set_prior(Histogram.load(prior) if isinstance(prior, str) else prior)

    @property
    def prior(self) -> Histogram | None:
        """The training histogram, or None while it is unset."""
        if self._prior.is_unset:
            return None
        edges, counts = (self._prior.get(name).cpu().numpy() for name in ("edges", "counts"))
        return Histogram(edges, counts)

    @property
    def needs_prior(self) -> bool:  # type: ignore[override]
        """Whether ``set_prior`` must still be called."""
        return self._prior.is_unset

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Take the histogram of the training labels and compute the weights of its bins.

        Raises:
            ValueError: A mixture, which has no bins, or an empty histogram.
        """
        if not isinstance(prior, Histogram):
            raise ValueError(
                f"expected a Histogram to weight its bins, got a {type(prior).__name__}"
            )
        arrays = (prior.edges, prior.counts, self._weights_of(prior))
        self._prior.set(*(torch.from_numpy(array) for array in arrays))

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the weighted error of every entry."""
        edges, weights = (self._prior.get(name).to(target.device) for name in ("edges", "weights"))
        distance = preds - target
        error = distance**2 if self.error == "squared" else distance.abs()
        return weights.to(target.dtype)[bin_per_label(target, edges)] * error
