"""A prior as part of a loss: saved, restored and moved with it."""

from typing import Any

from depthbal.losses.double_buffers import DoubleBuffers
from depthbal.priors import FitReport, GaussianMixture


class PriorBuffers(DoubleBuffers):
    """A Gaussian mixture held as buffers.

    Args:
        event_dim: Dimension of its labels: 0 for scalars, 1 for vectors.

    Example:
        >>> buffers = PriorBuffers()
        >>> buffers.set_mixture(GaussianMixture([1.0], [2.0], [0.5]))
        >>> fresh = PriorBuffers()
        >>> _ = fresh.load_state_dict(buffers.half().state_dict())
        >>> fresh.mixture.means
        tensor([2.], dtype=torch.float64)
    """

    def __init__(self, event_dim: int = 0) -> None:
        super().__init__("weights", "means", "variances")
        self.event_dim = event_dim
        self._mixture: GaussianMixture | None = None  # kept: it decomposes its covariances once
        self._fit_report: FitReport | None = None

    def set_mixture(self, mixture: GaussianMixture) -> None:
        """Replace the mixture."""
        self.set(weights=mixture.weights, means=mixture.means, variances=mixture.variances)
        self._mixture, self._fit_report = None, mixture.fit_report

    @property
    def mixture(self) -> GaussianMixture:
        """The mixture, on the buffers' device.

        Raises:
            ValueError: It is unset.
        """
        if self._mixture is None:
            self._mixture = GaussianMixture.unchecked(*(self.get(name) for name in self.names))
            self._mixture.fit_report = self._fit_report
        return self._mixture

    def _apply(self, fn: Any, recurse: bool = True) -> "PriorBuffers":
        self._mixture = None
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        means = state_dict.get(f"{prefix}means")
        if means is not None and means.ndim - 1 != self.event_dim:
            errors: list[str] = args[-1]
            errors.append(
                f"the prior was saved for event_dim={means.ndim - 1}, this loss has "
                f"event_dim={self.event_dim}"
            )
            return
        self._mixture = self._fit_report = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
