"""What the noise families share: evidence, read-out and bins of any density of one scale.

Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) holds for any f(y - p): the training posterior is
f(y - p) p_train(y) / integral of f(y' - p) p_train(y'), and its negative logarithm is the balanced
loss. A family is an energy, its slope and its normaliser; evidence and read-out are the same sums,
integrals and tables for all of them.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses import tables
from depthbal.losses.base import require_positive, scale_of
from depthbal.losses.evidence import (
    Components,
    Evidence,
    Precomputed,
    Prepared,
    Shares,
    SigmaOf,
    Tail,
    Wanted,
    exact_evidence,
    extent,
    wanted_derivatives,
    with_tail,
)
from depthbal.losses.readout import TOLERANCE, mean_by_quadrature, on_range
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import GaussianMixture

# Below this number of pairs (prediction, component) the exact sum is faster than anything prepared.
TABULATE_PAIRS = 2**20
# Building a table reads its range back. A GPU must not wait for that in every step, except where
# the sum itself takes longer than the wait.
DEVICE_TABLE_PAIRS = 2**28
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
# More masses than these are convolved with the noise on a grid of at most so many nodes that ends
# so far beyond them, in sigma. The sums have an error of about this share of the factors' norms.
# They are compared with the exact ones in a few places.
FEW_MASSES, MAX_GRID, GRID_SIGMAS = 2048, 2**21, 8.0
FFT_ERROR = 1e-15
PROBES = 32


class NoiseFamily(ABC):
    """A symmetric noise density f(r) = exp(-energy(r, s)) / normaliser(s) of scale s.

    Others than the Gaussian balance scalar labels over point masses. Over bins of a batch their
    slopes err by some 20 times the tolerance, Laplace's by the share of the labels in a bin.
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
        """Return -log f up to the normaliser, elementwise; 0 for a residual of 0."""

    @abstractmethod
    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by the residual."""

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return the logarithm of the integral of exp(-energy), elementwise."""
        return sigma.log() + self.log_constant

    def unit(self, sigma: Tensor) -> Tensor:
        """Return the factor that turns the energy into the plain, unbalanced loss."""
        return self.unit_factor * sigma ** (self.degree or 2)

    def steepness(self, sigma: float) -> float:
        """Return the largest slope times sigma."""
        return self.steepest

    def by_sigma(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by sigma."""
        if self.degree is not None:
            return self.energy(residual, sigma) * (-self.degree / sigma)
        return -residual * self.slope(residual, sigma) / sigma  # of a function of residual / sigma

    def cell_width(self, sigma: float, tolerance: float) -> float:
        """Return the width of bins of targets whose third moment changes log E by less."""
        reach = min(4 * max(1.0, self.steepness(sigma)), SEEN_SIGMAS)
        return sigma * math.cbrt(6 * tolerance / WORST_THIRD_MOMENT) / reach

    def log_evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        noise_sigma: Tensor | float,
        *,
        sigma_of: SigmaOf | None = None,
        tolerance: float = 1e-5,
    ) -> Tensor:
        """Return log of the integral of f(y - p; sigma) p_train(y) dy, one value per label.

            log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I)     for Gaussian noise

        float64 predictions get the exact sum. In float32, where scalar predictions are many, it is
        tabulated over their range, if the table agrees with the exact sum within ``tolerance``
        where its cells are checked; a GPU, which must not wait for a table's range, tabulates
        larger sums only. Half precision is computed in float32. No gradient flows to the prior.

        Args:
            preds: Predicted labels, any shape for a scalar mixture, (..., D) for dimension D.
            prior: p_train(y) as a mixture; point masses (variance 0) are allowed.
            noise_sigma: Noise scale sigma > 0 in label units: one number, or one per label.
            sigma_of: Sigma as a function of the prediction, where it is one, for tables.
            tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma in float32.

        Returns:
            Log evidence per label in float32 or float64: the shape of ``preds`` less an event axis.

        Raises:
            ValueError: ``noise_sigma`` of another shape or not positive, vectors of another length.

        Source: Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022, Theorem 1.

        Example:
            >>> from depthbal.losses import log_evidence
            >>> prior = GaussianMixture([1.0], [2.0], [3.0])
            >>> log_evidence(torch.zeros(2), prior, 1.0)  # log N(0; 2, 4)
            tensor([-2.1121, -2.1121])
        """
        value = self.evidence(preds, prior, noise_sigma, sigma_of, tolerance)
        size = preds.shape[-1] if prior.event_dim else 1
        return value - size * self.log_normaliser(scale_of(noise_sigma, value.shape, value))

    def evidence(
        self,
        preds: Tensor,
        prior: GaussianMixture,
        noise_sigma: Tensor | float,
        sigma_of: SigmaOf | None = None,
        tolerance: float = 1e-5,
        tail: Tail | None = None,
    ) -> Tensor:
        """Return ``log_evidence`` plus the log normaliser of the noise: what a loss adds."""
        preds = preds.to(compute_dtype(preds))
        labels, event = preds.shape, prior.means.shape[1:]
        if event:
            if preds.shape[-1:] != event:
                raise ValueError(
                    f"expected vectors of the prior's dimension {event[0]} on the last axis, got "
                    f"preds {tuple(preds.shape)}"
                )
            labels = preds.shape[:-1]
        sigma = scale_of(noise_sigma, labels, preds)
        sigma, flat = sigma.flatten() if sigma.ndim else sigma, preds.reshape(-1, *event)
        if not flat.numel():
            return (flat.sum() * 0 + sigma.sum() * 0).expand(labels)
        wanted = wanted_derivatives(flat, sigma)
        value: Tensor = Precomputed.apply(
            flat,
            sigma,
            lambda p, s: self.prepare(p, s, prior, wanted, sigma_of, tolerance, tail=tail)(p),
        )
        return value.view(labels)

    def prepare(
        self,
        preds: Tensor,
        sigma: Tensor,
        prior: GaussianMixture,
        wanted: Wanted,
        sigma_of: SigmaOf | None = None,
        tolerance: float = 1e-5,
        mask: Tensor | None = None,
        tail: Tail | None = None,
    ) -> Prepared:
        """Return the function that gives the evidence of preds, or for one sigma of any part.

        A tail, which only Gaussian noise can have, adds to the prior.
        """
        require_positive(sigma)
        mixture = self.components(prior, preds.device)
        quick = None if sigma.ndim else self.of_one_scale(mixture, sigma.double(), wanted)
        if quick is not None:
            return quick
        pairs = preds.shape[0] * len(mixture.means)
        many = pairs >= (TABULATE_PAIRS if preds.device.type == "cpu" else DEVICE_TABLE_PAIRS)
        one_curve = preds.ndim == 1 and (sigma.ndim == 0 or sigma_of is not None)
        if many and one_curve and sigma.dtype == torch.float32:

            def noise(nodes: Tensor) -> Tensor:
                return (sigma if sigma_of is None else sigma_of(nodes)).double()

            def exact(nodes: Tensor) -> Tensor:
                return _stacked(exact_evidence(nodes, noise(nodes), mixture, wanted, self.block))

            inside = mixture.log_weights.exp() @ mixture.means
            low, high = extent(preds, mask, sigma, inside).tolist()
            smallest, largest = (float(end) for end in sigma.aminmax())
            # Times the largest sigma, the derivatives are pure numbers like the logarithm itself.
            sizes = [1.0] + [largest] * sum(wanted)
            errors = tolerance / mixture.means.new_tensor(sizes)[:, None]
            near: tables.Function = exact
            if sigma.ndim == 0 and len(mixture.means) > FEW_MASSES:
                near = self.convolved(exact, mixture, sigma.double(), wanted, errors)

            def curves(nodes: Tensor) -> Tensor:
                found = near(nodes)
                if tail is None:
                    return found
                return _stacked(with_tail(_evidence(found, wanted), nodes, noise(nodes), tail))

            # a tail is as sharp as the noise
            grid = mixture if tail is None else mixture.with_mass(tail.end)
            table = self.table(curves, (low, high), smallest, grid, preds.numel(), errors)
            if table is not None or near is not exact:

                def tabulated(part: Tensor) -> Evidence:
                    if table is None:  # few predictions for its cells: the grid itself serves
                        return _evidence(curves(part.double()).to(part), wanted)
                    return _evidence(tables.interpolate(table, part), wanted)

                return tabulated
        rounded = mixture.to(sigma)

        def summed(part: Tensor) -> Evidence:
            found = exact_evidence(part, sigma, rounded, wanted, self.block)
            return found if tail is None else with_tail(found, part, sigma, tail)

        return summed

    def of_one_scale(self, masses: Components, scale: Tensor, wanted: Wanted) -> Prepared | None:
        """Return the evidence for one scale where a family has a faster way than tables."""
        return None

    def components(self, prior: GaussianMixture, device: torch.device) -> Components:
        """Return a prior as the family's sums want it: here as sorted masses, in float64."""
        if prior.event_dim:
            raise ValueError(
                "expected a prior of scalar labels for this noise family, got vectors: only the "
                "gaussian family balances vectors"
            )
        log_weights, means, variances, _ = Components.of(prior, device)
        if bool((variances > 0).any()):
            raise ValueError(
                "expected a prior of point masses (variance 0) for this noise family: use "
                "family='gaussian', or histogram bins (BNI) instead of a mixture (GAI)"
            )
        counts = log_weights > -math.inf
        log_weights, means = log_weights[counts], means[counts]
        if not bool((means.diff() >= 0).all()):  # sorting takes longer than to see it
            means, order = means.sort()
            log_weights = log_weights[order]
        return Components(log_weights, means, torch.zeros_like(means))

    def block(self, preds: Tensor, sigma: Tensor, mixture: Components, wanted: Wanted) -> Evidence:
        """Return the evidence of a block of predictions: here (n,) from all pairs with masses."""
        scale = sigma[..., None]
        distance = mixture.means - preds[:, None]
        shares = Shares(mixture.log_weights - self.energy(distance, scale))
        return Evidence(
            shares.log_sum,
            shares.mean(self.slope(distance, scale)) if wanted.by_preds else None,
            -shares.mean(self.by_sigma(distance, scale)) if wanted.by_sigma else None,
        )

    def prior_of(self, weights: Tensor, means: Tensor, variances: Tensor) -> GaussianMixture:
        """Return bins of labels as masses: two, mean ± deviation, for one with a variance."""
        wide, deviation = variances > 0, variances.sqrt()
        weights = torch.where(wide, weights / 2, weights)
        means = torch.cat([means - deviation, (means + deviation)[wide]])
        weights = torch.cat([weights, weights[wide]])
        return GaussianMixture.unchecked(weights, means, torch.zeros_like(means))

    def convolved(
        self,
        exact: tables.Function,
        masses: Components,
        sigma: Tensor,
        wanted: Wanted,
        errors: Tensor,
    ) -> tables.Function:
        """Return the exact curves from one convolution on a grid, where that knows them as well."""
        # A mass becomes three on the grid with its mean and variance, whose third moment is off by
        # less than that of a bin twice as wide as these cells.
        width = 2.0 ** math.floor(math.log2(self.cell_width(float(sigma), float(errors[0]) / 8)))
        low, high = (float(end) for end in masses.means.aminmax())
        reach = GRID_SIGMAS * float(sigma)
        first = math.floor((low - reach) / width)
        count = math.ceil((high + reach) / width) - first
        if count > MAX_GRID:
            return exact
        position = masses.means / width - first
        cell = position.round().long()
        offset, weights = position - cell, masses.log_weights.exp()
        square = offset**2 + masses.variances / width**2
        heights = torch.zeros(count, dtype=torch.float64, device=weights.device)
        for step, share in enumerate(((square - offset) / 2, 1 - square, (square + offset) / 2)):
            heights.index_add_(0, cell + step - 1, weights * share)
        steps = width * torch.arange(1 - count, count, dtype=torch.float64, device=weights.device)
        zero = steps.new_zeros(1)
        one = exact_evidence(steps, sigma, Components(zero, zero, zero), wanted, self.block)
        density = one.value.exp()
        kernels = [density] + [density * part for part in one[1:] if part is not None]
        size = 1 << (2 * count).bit_length()
        spectrum = torch.fft.rfft(heights, size)
        spectra = (torch.fft.rfft(kernel, size) * spectrum for kernel in kernels)
        parts = [torch.fft.irfft(part, size)[count - 1 : 2 * count - 1] for part in spectra]
        sums = torch.stack(parts)
        smallest = FFT_ERROR / float(errors[0]) * heights.norm() * density.norm()
        usable = (sums[0] > smallest).unfold(0, 4, 1).all(1)
        table = tables.cubic(first + 1, width, torch.cat([sums[:1].log(), sums[1:] / sums[:1]]))

        def curves(nodes: Tensor) -> Tensor:
            cell, offset = table.locate(nodes)
            found = torch.stack(tables.interpolate(table, nodes))
            poor = ~(usable.index_select(0, cell) & (offset >= 0) & (offset <= 1))
            if poor.any():
                found[:, poor] = exact(nodes[poor])
            return found

        probes = torch.linspace(low, high, PROBES, dtype=torch.float64, device=weights.device)
        return curves if bool(((curves(probes) - exact(probes)).abs() < errors).all()) else exact

    def table(
        self,
        exact: tables.Function,
        ends: tuple[float, float],
        sigma: float,
        masses: Components,
        count: int,
        errors: Tensor,
    ) -> tables.Table | tables.PiecewiseTable | None:
        """Return a table of the exact curves between two ends for so many predictions, or None."""
        decay = sigma / max(1.0, self.steepness(sigma))
        low, high = ends[0], max(ends[1], ends[0] + decay)
        breaks = torch.cat([masses.means + kink for kink in self.kinks or (0.0,)]).sort().values
        if len(breaks) > MAX_BREAKS:
            step = CELL_SIGMAS * sigma
            breaks = step * torch.unique_consecutive((breaks / step).round())
            if self.kinks:
                errors = torch.cat([errors[:1], MANY_MASSES_SLACK * errors[1:]])
        apart = functional.pad(breaks.diff() > SAME_BREAK * decay, (1, 0), value=True)
        inside = breaks[apart & (breaks > low) & (breaks < high)]
        edges = torch.cat([inside.new_tensor([low]), inside, inside.new_tensor([high])])
        return tables.build_between(exact, edges, count // PREDS_PER_CELL, errors)

    def readout(
        self, preds: Tensor, noise_sigma: Tensor | float, label_range: tuple[float, float]
    ) -> Tensor:
        """Return the mean of f(y - p) truncated to the label range, elementwise."""
        low, high = label_range

        def mean(location: Tensor, sigma: Tensor) -> Tensor:
            return mean_by_quadrature(self, location, sigma, low, high)[None]

        # Where the tail of the density is linear, a location says no more than one where it begins.
        preds = preds.clamp(low - self.linear_beyond, high + self.linear_beyond)
        return on_range(mean, preds, noise_sigma, label_range, TOLERANCE, self.kinks)[0]


def _stacked(evidence: Evidence) -> Tensor:
    """Return the curves that are wanted, (curves, n)."""
    return torch.stack([curve for curve in evidence if curve is not None])


def _evidence(curves: Iterable[Tensor], wanted: Wanted) -> Evidence:
    """Return the evidence of such curves."""
    value, *rest = curves
    by_preds = rest.pop(0) if wanted.by_preds else None
    return Evidence(value, by_preds, rest.pop(0) if wanted.by_sigma else None)
