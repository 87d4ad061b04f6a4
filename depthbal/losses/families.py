"""Noise families: the densities f of label noise over which a loss can be balanced.

Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) holds for any f(y - p): the training posterior is
f(y - p) p_train(y) / integral of f(y' - p) p_train(y'), and its negative logarithm is the balanced
loss. The paper works out the Gaussian; the others go beyond it. A family is an energy, its slope
and its normaliser; evidence and read-out are the same sums, integrals and tables for all of them.
"""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.kernel import tables
from depthbal.losses.kernel.evidence import (
    TABULATE_PAIRS,
    Prepared,
    Request,
    SigmaOf,
    components,
    extent,
    from_curves,
    log_evidence,
    prepare,
    require_positive,
    stored_evidence,
    table_errors,
)
from depthbal.losses.kernel.exact import Components, Evidence, Shares, Wanted, exact_evidence
from depthbal.losses.readout import truncated_mean, truncated_normal_mean
from depthbal.priors import GaussianMixture

FamilyKind = Literal["gaussian", "laplace", "huber", "student"]

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

    @abstractmethod
    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return -log f up to the normaliser, elementwise."""

    @abstractmethod
    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by the residual."""

    @abstractmethod
    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return the logarithm of the integral of exp(-energy), elementwise."""

    @abstractmethod
    def unit(self, sigma: Tensor) -> Tensor:
        """Return the factor that turns the energy into the plain, unbalanced loss."""

    @abstractmethod
    def steepness(self, sigma: float) -> float:
        """Return the largest slope times sigma."""

    def by_sigma(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the derivative of the energy by sigma: here of a function of residual / sigma."""
        return -residual * self.slope(residual, sigma) / sigma

    def normaliser_by_sigma(self, sigma: Tensor) -> Tensor:
        """Return the derivative of ``log_normaliser``: here that of log sigma and a constant."""
        return 1 / sigma

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
        """Return log of the integral of f(y - p) p_train(y), one value per label.

        Arguments and errors are those of ``depthbal.losses.log_evidence``.
        """

        def compute(flat: Tensor, scale: Tensor, wanted: Wanted) -> Evidence:
            request = Request(wanted, sigma_of, tolerance, memory_budget_mb)
            return self.prepare(flat, scale, prior, request)(flat)

        return stored_evidence(preds, sigma, compute)

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
        wanted, budget_mb = request.wanted, request.budget_mb
        table = self._table(preds, sigma, masses, request, mask)
        if table is not None:
            return lambda part: from_curves(tables.interpolate(table, part, budget_mb), wanted)
        rounded = masses.to(sigma)
        return lambda part: exact_evidence(part, sigma, rounded, wanted, budget_mb, self.pairs)

    def pairs(self, preds: Tensor, sigma: Tensor, masses: Components, wanted: Wanted) -> Evidence:
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
        wanted, sigma_of = request.wanted, request.sigma_of
        pairs = preds.numel() * len(masses.means)
        one_curve = sigma.ndim == 0 or sigma_of is not None
        if not one_curve or sigma.dtype != torch.float32 or pairs < TABULATE_PAIRS:
            return None

        def exact(nodes: Tensor) -> Tensor:
            noise = sigma.double() if sigma_of is None else sigma_of(nodes).double()
            curves = exact_evidence(nodes, noise, masses, wanted, request.budget_mb, self.pairs)
            return torch.stack([curve for curve in curves if curve is not None])

        max_cells = preds.numel() // PREDS_PER_CELL
        errors = table_errors(sigma, request)
        low, high = extent(preds, mask, sigma, masses.means[0]).tolist()
        smallest = float(sigma.min())
        span = (high - low) / (CELL_SIGMAS * smallest)
        cells = math.ceil(span) if span < 1e9 else 2**31
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
        return tables.build_between(exact, edges, max_cells, errors)

    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return the mean of f(y - p) truncated to the label range, elementwise."""
        return truncated_mean(self, preds, sigma, label_range)


class GaussianFamily(NoiseFamily):
    """N(0, s^2): Balanced MSE, the loss of the paper, in closed form over any mixture."""

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r^2 / (2 s^2)."""
        return residual.square() * (0.5 / sigma**2)

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r / s^2."""
        return residual * (1 / sigma**2)

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log s sqrt(2 pi)."""
        return sigma.log() + 0.5 * math.log(2 * math.pi)

    def unit(self, sigma: Tensor) -> Tensor:
        """Return 2 s^2, which turns the energy into the squared error."""
        return 2 * sigma**2

    def steepness(self, sigma: float) -> float:
        """Return the slope at the farthest distance that is seen."""
        return SEEN_SIGMAS

    def log_evidence(self, preds, prior, sigma, **options):  # type: ignore[no-untyped-def]
        """Return ``log_evidence``, for vectors too."""
        return log_evidence(preds, prior, sigma, **options)

    def prepare(
        self,
        preds: Tensor,
        sigma: Tensor,
        prior: GaussianMixture,
        request: Request,
        mask: Tensor | None = None,
    ) -> Prepared:
        """Return the function that gives the evidence in closed form."""
        return prepare(preds, sigma, components(prior, preds.device), request, mask)

    def readout(self, preds: Tensor, sigma: Tensor, label_range: tuple[float, float]) -> Tensor:
        """Return the truncated-normal mean."""
        return truncated_normal_mean(preds, sigma, label_range)


class LaplaceFamily(NoiseFamily):
    """Noise density f(r) = exp(-|r| / b) / (2 b): the balanced L1 loss.

        L(p, y) = |y - p| / b + log sum_k w_k exp(-|mu_k - p| / b)

    times b it compares with the absolute error. The scale b is the noise's mean absolute error.
    Left or right of all masses the loss is constant: a location that far says no more than that
    the label lies at that end of the range, so the gradient is 0 there.

    Example:
        >>> LaplaceFamily().log_density(torch.tensor(-2.0), torch.tensor(1.0))  # -2 - log 2
        tensor(-2.6931)
    """

    kinks = (0.0,)
    linear_beyond = 0.0

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return |r| / b."""
        return residual.abs() / sigma

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the sign of r over b, 0 at 0 as in the derivative of ``torch.abs``."""
        return residual.sign() / sigma

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log 2 b."""
        return (2 * sigma).log()

    def unit(self, sigma: Tensor) -> Tensor:
        """Return b, which turns the energy into the absolute error."""
        return sigma

    def steepness(self, sigma: float) -> float:
        """Return 1."""
        return 1.0

    def cell_width(self, sigma: float, tolerance: float) -> float:
        """Return the width within which a kink may move."""
        return 8 * tolerance * sigma

    def prepare(
        self,
        preds: Tensor,
        sigma: Tensor,
        prior: GaussianMixture,
        request: Request,
        mask: Tensor | None = None,
    ) -> Prepared:
        """Return the function that gives the evidence, for one scale exact in O((N + K) log K).

        No table comes near a kink at every label. But seen from p, the masses on one side all decay
        alike when p moves away, so that their sum need be known only at the mass next to p.
        """
        if sigma.ndim:
            return super().prepare(preds, sigma, prior, request, mask)
        require_positive(sigma)
        masses = point_masses(prior, preds.device)
        scale, wanted = sigma.double(), request.wanted
        places, weights = masses.means, masses.log_weights.exp()
        if not bool((places.diff() > 0).all()):  # equal places are one mass
            places, owner = torch.unique_consecutive(places, return_inverse=True)
            weights = torch.zeros_like(places).index_add_(0, owner, weights)
        left = _decayed_sums(weights, places / scale, wanted.by_sigma)
        right = _decayed_sums(weights.flip(0), -places.flip(0) / scale, wanted.by_sigma).flip(1)
        nothing = weights.new_tensor([-math.inf, 0.0])[: len(left), None]
        left, right = torch.cat([nothing, left], 1), torch.cat([right, nothing], 1)
        padded = functional.pad(places, (1, 1))
        own = functional.pad(weights.log(), (1, 0), value=-math.inf)
        lookup = tables.Lookup.of(places)

        def evidence(part: Tensor) -> Evidence:
            points = part.double()
            k = lookup(points)
            to_left = (points - padded.index_select(0, k)) / scale
            to_right = (padded.index_select(0, k + 1) - points) / scale
            before = left[0].index_select(0, k) - to_left
            after = right[0].index_select(0, k) - to_right
            top = torch.maximum(before, after)
            one, other = (before - top).exp_(), (after - top).exp_()
            total = one + other
            value = total.log() + top - (2 * scale).log()
            by_preds = by_sigma = None
            if wanted.by_preds:  # the mass at a kink adds 0 to the slope
                kink = torch.where(to_left == 0, (own.index_select(0, k) - top).exp_(), 0.0)
                by_preds = ((other - one + kink) / (total * scale)).to(part.dtype)
            if wanted.by_sigma:
                distance = one * (left[1].index_select(0, k) + to_left)
                distance += other * (right[1].index_select(0, k) + to_right)
                by_sigma = ((distance / total - 1) / scale).to(part.dtype)
            return Evidence(value.to(part.dtype), by_preds, by_sigma)

        return evidence


def _decayed_sums(weights: Tensor, places: Tensor, moments: bool) -> Tensor:
    """Return log S_k of the masses up to each mass k, and their mean distance if it is wanted.

    S_k = sum_{j <= k} w_j exp(-(x_k - x_j)) at increasing places x in units of the scale.
    """
    x = places - places[0]
    sums = torch.logcumsumexp(weights.log() + x, 0)
    if not moments:
        return (sums - x)[None]
    centres = (torch.logcumsumexp(weights.log() + x + x.log(), 0) - sums).exp()
    return torch.stack([sums - x, x - centres])


class HuberFamily(NoiseFamily):
    """Noise density f(r) = exp(-h(r) / s^2) / Z(s): the balanced Huber loss.

        L(p, y) = h(y - p) / s^2 + log sum_k w_k exp(-h(mu_k - p) / s^2)
        Z = s [sqrt(2 pi) erf(u / sqrt 2) + (2 / u) exp(-u^2 / 2)],   u = delta / s

    with Huber's h(r) = r^2 / 2 for |r| <= delta and delta (|r| - delta / 2) beyond. Times s^2 it
    compares with the plain Huber loss (half the squared error, where the Gaussian family gives the
    whole). A large delta is Gaussian noise, a small one Laplace noise of scale s^2 / delta.

    Args:
        delta: Residual > 0 at which the tails begin, label units.

    Source: Huber, Robust Estimation of a Location Parameter, 1964, for h and its density.

    Example:
        >>> HuberFamily(1.0).energy(torch.tensor([0.5, -3.0]), torch.tensor(1.0))
        tensor([0.1250, 2.5000])
    """

    def __init__(self, delta: float) -> None:
        if not (math.isfinite(delta) and delta > 0):
            raise ValueError(f"expected a positive, finite delta in label units, got {delta}")
        self.delta = self.linear_beyond = float(delta)
        self.kinks = (-self.delta, self.delta)

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return h(r) / s^2."""
        pull = residual.clamp(-self.delta, self.delta)
        return pull * (residual - 0.5 * pull) * (1 / sigma**2)

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r / s^2, at most delta / s^2."""
        return residual.clamp(-self.delta, self.delta) * (1 / sigma**2)

    def by_sigma(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return -2 h(r) / s^3: delta is in label units."""
        return self.energy(residual, sigma) * (-2 / sigma)

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log Z(s): of |r| <= delta, and of the two tails."""
        core, tails = self._core_and_tails(sigma)
        return sigma.log() + (core + tails).log()

    def normaliser_by_sigma(self, sigma: Tensor) -> Tensor:
        """Return between 1 / s for noise that is all core and 2 / s for noise that is all tail."""
        core, tails = self._core_and_tails(sigma)
        return (1 + tails / (core + tails)) / sigma

    def _core_and_tails(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        u = self.delta / sigma
        core = math.sqrt(2 * math.pi) * torch.erf(u * math.sqrt(0.5))
        return core, 2 / u * torch.exp(-0.5 * u**2)

    def unit(self, sigma: Tensor) -> Tensor:
        """Return s^2, which turns the energy into Huber's loss."""
        return sigma**2

    def steepness(self, sigma: float) -> float:
        """Return delta / s."""
        return self.delta / sigma


class StudentFamily(NoiseFamily):
    """Student's t of scale s and ``df`` degrees of freedom: a loss that gives up on wrong labels.

        L(p, y) = (df + 1) / 2 log(1 + (y - p)^2 / (df s^2)) + log E(p)

    The pull of a label falls off beyond sqrt(df) s. Times 2 s^2 df / (df + 1) it compares with the
    squared error of small errors. A large df is Gaussian noise. The read-out of a location far
    outside the range is the middle of the range: such a location says nothing.

    Args:
        df: Degrees of freedom > 0.

    Source: Lange, Little and Taylor, Robust Statistical Modeling Using the t Distribution, 1989,
    for t noise in regression.

    Example:
        >>> StudentFamily(1.0).log_density(torch.tensor(0.0), torch.tensor(1.0))  # Cauchy: -log pi
        tensor(-1.1447)
    """

    def __init__(self, df: float) -> None:
        if not (math.isfinite(df) and df > 0):
            raise ValueError(f"expected positive, finite degrees of freedom, got {df}")
        self.df = float(df)

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return (df + 1) / 2 log(1 + r^2 / (df s^2))."""
        return torch.log1p((residual / sigma).square() / self.df) * ((self.df + 1) / 2)

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return (df + 1) r / (df s^2 + r^2)."""
        z = residual / sigma
        return (self.df + 1) * z / (self.df + z.square()) / sigma

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log s sqrt(df pi) Gamma(df / 2) / Gamma((df + 1) / 2)."""
        gammas = math.lgamma(self.df / 2) - math.lgamma((self.df + 1) / 2)
        return sigma.log() + (0.5 * math.log(self.df * math.pi) + gammas)

    def unit(self, sigma: Tensor) -> Tensor:
        """Return 2 s^2 df / (df + 1), which turns the energy of small errors into their square."""
        return 2 * sigma**2 * (self.df / (self.df + 1))

    def steepness(self, sigma: float) -> float:
        """Return (df + 1) / (2 sqrt(df)), the slope at sqrt(df) s."""
        return (self.df + 1) / (2 * math.sqrt(self.df))


def build_family(kind: FamilyKind, huber_delta: float, student_df: float) -> NoiseFamily:
    """Return the family of that name."""
    if kind == "gaussian":
        return GaussianFamily()
    if kind == "laplace":
        return LaplaceFamily()
    if kind == "huber":
        return HuberFamily(huber_delta)
    if kind == "student":
        return StudentFamily(student_df)
    raise ValueError(f"expected family gaussian, laplace, huber or student, got {kind!r}")


def point_masses(prior: GaussianMixture, device: torch.device) -> Components:
    """Return the masses of a scalar prior without spread, sorted, in float64.

    Raises:
        ValueError: A prior of vectors, or one whose components have a variance.
    """
    if prior.event_dim:
        raise ValueError(
            "expected a prior of scalar labels for this noise family, got vectors of dimension "
            f"{prior.means.shape[1]}; only the gaussian family balances vectors"
        )
    parts = (prior.weights, prior.means, prior.variances)
    weights, means, variances = (part.to(device=device, dtype=torch.float64) for part in parts)
    if bool((variances > 0).any()):
        raise ValueError(
            "expected a prior of point masses (variance 0) for this noise family, got components "
            "with a variance; use family='gaussian', or histogram bins (BNI) instead of a mixture "
            "(GAI)"
        )
    counts = weights > 0
    log_weights, means = weights[counts].log(), means[counts]
    if not bool((means.diff() >= 0).all()):  # bins are sorted, which takes longer than to see it
        means, order = means.sort()
        log_weights = log_weights[order]
    return Components(log_weights, means, torch.zeros_like(means))


def without_spread(prior: GaussianMixture) -> GaussianMixture:
    """Return a scalar mixture of masses: components with a variance become two, mean ± deviation.

    They keep weight, mean and variance, so that for components narrow beside the noise, such as
    bins of the batch's labels, the evidence of any smooth density errs in the third order only.
    """
    wide = prior.variances > 0
    deviation = prior.variances.sqrt()
    weights = torch.where(wide, prior.weights / 2, prior.weights)
    means = torch.cat([prior.means - deviation, (prior.means + deviation)[wide]])
    weights = torch.cat([weights, weights[wide]])
    return GaussianMixture.unchecked(weights, means, torch.zeros_like(means))
