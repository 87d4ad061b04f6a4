"""What the noise families share: evidence, read-out and bins of any density of one scale.

Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) holds for any f(y - p): the training posterior is
f(y - p) p_train(y) / integral of f(y' - p) p_train(y'), and its negative logarithm is the balanced
loss. A family is an energy, its slope and its normaliser; evidence and read-out are the same sums,
integrals and tables for all of them.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.kernel import tables
from depthbal.losses.kernel.evidence import (
    TABULATE_PAIRS,
    Prepared,
    Request,
    SigmaOf,
    by_table,
    curves_of,
    extent,
    require_positive,
    stored_evidence,
    table_errors,
)
from depthbal.losses.kernel.exact import Components, Evidence, Shares, Wanted, exact_evidence
from depthbal.losses.readout import truncated_mean
from depthbal.priors import GaussianMixture

# A table's cells end where the evidence is not smooth, unless there are more such points: those of
# the batch's bins are many and weak, and cells of this share of sigma look past them. Then the
# slopes may err by so many tolerances.
MAX_BREAKS = 512
CELL_SIGMAS = 1 / 8
MANY_MASSES_SLACK = 10.0
# A table must have this many times fewer cells than there are predictions.
PREDS_PER_CELL = 32
# Points nearer than this share of the length over which the noise decays count as one.
SAME_BREAK = 1e-7
# Bins of the batch's targets: the farthest that a prediction sees of Gaussian noise, in sigma (8,
# and more because the derivatives of the error are up to 5 times as large as the error), and the
# largest third central moment of values within a width of 1.
SEEN_SIGMAS = 14.0
WORST_THIRD_MOMENT = 0.0963


class NoiseFamily(ABC):
    """A symmetric noise density f(r) = exp(-energy(r, s)) / normaliser(s) of scale s.

    Other families than the Gaussian balance scalar labels over point masses: histogram bins (BNI)
    or the batch's labels (BMC). float64 predictions get the exact sum over all pairs; many float32
    ones are interpolated between such sums, with errors of log E, s dlogE/dp and s dlogE/ds below
    the tolerance where a cell is checked. Over a batch's bins the slopes err by up to 20 times
    that, for Laplace noise by the share of the labels that lie in a bin of 8 b times the tolerance.
    """

    #: Residuals at which the energy is not smooth.
    kinks: tuple[float, ...] = ()
    #: Residual beyond which the energy is linear: farther out a location says no more.
    linear_beyond: float = math.inf
    #: d for an energy of the form h(r) / s^d, whose derivative by s is -d / s times itself.
    degree: int | None = None
    #: Logarithm of the normaliser over s.
    log_constant: float = 0.0
    #: What turns the energy times s^2 (or s^degree) into the plain, unbalanced loss.
    unit_factor: float = 1.0
    #: The largest slope times s.
    steepest: float = 1.0

    @abstractmethod
    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return -log f up to the normaliser, elementwise."""

    @abstractmethod
    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by the residual."""

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return the logarithm of the integral of exp(-energy), elementwise."""
        return sigma.log() + self.log_constant

    def normaliser_by_sigma(self, sigma: Tensor) -> Tensor:
        """Return the derivative of ``log_normaliser``: here that of log sigma and a constant."""
        return 1 / sigma

    def unit(self, sigma: Tensor) -> Tensor:
        """Return the factor that turns the energy into the plain, unbalanced loss."""
        return self.unit_factor * sigma ** (self.degree or 2)

    def steepness(self, sigma: float) -> float:
        """Return the largest slope times sigma."""
        return self.steepest

    def energy_sum(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the sum of energies of one sigma, in as few passes as there can be."""
        return self.energy(residual, sigma).sum()

    def add_slope(self, start: Tensor, residual: Tensor, sigma: Tensor, weight: float) -> Tensor:
        """Return ``start`` plus the weighted slope, in as few passes as there can be."""
        return start.add(self.slope(residual, sigma), alpha=weight)

    def by_sigma(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by sigma."""
        if self.degree is not None:
            return self.energy(residual, sigma) * (-self.degree / sigma)
        return -residual * self.slope(residual, sigma) / sigma  # of a function of residual / sigma

    def cell_width(self, sigma: float, tolerance: float) -> float:
        """Return the width of bins of targets, by mean and variance, that change log E by less.

        A group of targets within a width h then errs by its third moment alone, at most
        0.0963 h^3, times the cube of the density's slope over 6.
        """
        reach = min(4 * max(1.0, self.steepness(sigma)), SEEN_SIGMAS)
        return sigma * math.cbrt(6 * tolerance / WORST_THIRD_MOMENT) / reach

    def log_density(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return log f(r), elementwise."""
        return -self.energy(residual, sigma) - self.log_normaliser(sigma)

    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        sigma: Tensor | float,
        *,
        sigma_of: SigmaOf | None = None,
        tolerance: float = 1e-5,
        memory_budget_mb: float = 256,
    ) -> Tensor:
        """Return what ``depthbal.losses.log_evidence`` returns, under this noise."""
        request = Request(sigma_of=sigma_of, tolerance=tolerance, budget_mb=memory_budget_mb)
        return stored_evidence(self.prepare, preds, prior, sigma, request)

    def prepare(
        self,
        preds: Tensor,
        sigma: Tensor,
        prior: GaussianMixture,
        request: Request,
        mask: Tensor | None = None,
    ) -> Prepared:
        """Return the function that gives the evidence; see ``kernel.evidence.prepare``."""
        require_positive(sigma)
        masses = point_masses(prior, preds.device)
        table = self._table(preds, sigma, masses, request, mask)
        if table is not None:
            return by_table(table, request)
        rounded, (wanted, _, _, budget_mb) = masses.to(sigma), request
        return lambda part: exact_evidence(part, sigma, rounded, wanted, budget_mb, self._pairs)

    def _pairs(self, preds: Tensor, sigma: Tensor, masses: Components, wanted: Wanted) -> Evidence:
        """Return the evidence of a block of predictions (n,) from all pairs with masses."""
        scale = sigma[..., None]
        distance = masses.means - preds[:, None]
        shares = Shares(masses.log_weights - self.energy(distance, scale))
        by_preds = by_sigma = None
        if wanted.by_preds:
            by_preds = shares.mean(self.slope(distance, scale))
        if wanted.by_sigma:
            of_energy = shares.mean(self.by_sigma(distance, scale))
            by_sigma = -of_energy - self.normaliser_by_sigma(sigma)
        return Evidence(shares.log_sum - self.log_normaliser(sigma), by_preds, by_sigma)

    def _table(
        self,
        preds: Tensor,
        sigma: Tensor,
        masses: Components,
        request: Request,
        mask: Tensor | None,
    ) -> tables.PiecewiseTable | None:
        """Return a table of the float64 sums over the predictions, or None where none pays."""
        one_curve = sigma.ndim == 0 or request.sigma_of is not None
        pairs = preds.numel() * len(masses.means)
        if not one_curve or sigma.dtype != torch.float32 or pairs < TABULATE_PAIRS:
            return None
        max_cells = preds.numel() // PREDS_PER_CELL
        errors = table_errors(sigma, request)
        low, high = extent(preds, mask, sigma, masses.means[0]).tolist()
        smallest = float(sigma.min())
        cells = math.ceil(min((high - low) / (CELL_SIGMAS * smallest), 2.0**31))
        breaks = torch.cat([masses.means + kink for kink in self.kinks or (0.0,)]).sort().values
        if len(breaks) > (MAX_BREAKS if self.kinks else cells):
            if self.kinks:
                errors[1:] *= MANY_MASSES_SLACK
            if not 0 < cells <= max_cells:
                return None
            breaks = torch.linspace(low, high, cells + 1, dtype=breaks.dtype, device=breaks.device)
        decay = smallest / max(1.0, self.steepness(smallest))
        apart = functional.pad(breaks.diff() > SAME_BREAK * decay, (1, 0), value=True)
        inside = breaks[apart & (breaks > low) & (breaks < high)]
        edges = torch.cat([inside.new_tensor([low]), inside, inside.new_tensor([high])])
        exact = curves_of(sigma, masses, request, self._pairs)
        return tables.build_between(exact, edges, max_cells, errors)

    def readout(
        self, preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float]
    ) -> Tensor:
        """Return the mean of f(y - p) truncated to the label range, elementwise."""
        return truncated_mean(self, preds, noise_sigma, label_range)


def point_masses(prior: GaussianMixture, device: torch.device) -> Components:
    """Return the masses of a scalar prior, sorted, in float64; any other prior is a ValueError."""
    if prior.event_dim:
        raise ValueError(
            "expected a prior of scalar labels for this noise family, got vectors of dimension "
            f"{prior.means.shape[1]}; only the gaussian family balances vectors"
        )
    log_weights, means, variances, _ = Components.of(prior, device)
    if bool((variances > 0).any()):
        raise ValueError(
            "expected a prior of point masses (variance 0) for this noise family, got components "
            "with a variance; use family='gaussian', or histogram bins (BNI) instead of a mixture "
            "(GAI)"
        )
    counts = log_weights > -math.inf
    log_weights, means = log_weights[counts], means[counts]
    if not bool((means.diff() >= 0).all()):  # bins are sorted, which takes longer than to see it
        means, order = means.sort()
        log_weights = log_weights[order]
    return Components(log_weights, means, torch.zeros_like(means))


def without_spread(prior: GaussianMixture) -> GaussianMixture:
    """Return a scalar mixture of masses: components with a variance become two, mean ± deviation.

    For components narrow beside the noise, such as bins of labels, log E errs in the third order.
    """
    wide = prior.variances > 0
    deviation = prior.variances.sqrt()
    weights = torch.where(wide, prior.weights / 2, prior.weights)
    means = torch.cat([prior.means - deviation, (prior.means + deviation)[wide]])
    weights = torch.cat([weights, weights[wide]])
    return GaussianMixture.unchecked(weights, means, torch.zeros_like(means))
