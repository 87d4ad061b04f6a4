"""The noise families: normal, Laplace, Huber's and Student's t.

The paper works out the Gaussian; the others go beyond it, by its Theorem 1.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses import tables
from depthbal.losses.base import require_one_of
from depthbal.losses.evidence import Components, Evidence, Prepared, Wanted, gaussian
from depthbal.losses.family import SEEN_SIGMAS, NoiseFamily
from depthbal.losses.readout import truncated_normal_mean
from depthbal.priors import GaussianMixture

# So many sigma beyond the masses equal cells go whatever that costs: one far prediction must not
# make a table large.
REACH = 16.0

FamilyKind = Literal["gaussian", "laplace", "huber", "student"]


class GaussianFamily(NoiseFamily):
    """N(0, s^2): Balanced MSE, the loss of the paper, in closed form over any mixture."""

    degree, unit_factor, steepest = 2, 2.0, SEEN_SIGMAS
    log_constant = 0.5 * math.log(2 * math.pi)
    components = staticmethod(Components.of)  # vectors too
    prior_of = staticmethod(GaussianMixture.unchecked)
    block = staticmethod(gaussian)
    readout = staticmethod(truncated_normal_mean)

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r^2 / (2 s^2)."""
        return residual.square() / (2 * sigma**2)

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return r / s^2."""
        return residual / sigma**2

    def table(
        self,
        exact: tables.Function,
        ends: tuple[float, float],
        sigma: float,
        masses: Components,
        count: int,
        errors: Tensor,
    ) -> tables.Table | tables.PiecewiseTable | None:
        """Return a table of equal cells, for the evidence is smooth, or one for far ends."""
        extremes = torch.stack([masses.means, masses.variances]).aminmax(dim=1)
        (first, narrowest), (last, widest) = torch.stack(extremes).tolist()
        reach = REACH * math.hypot(sigma, widest**0.5)
        smoothness = math.hypot(sigma, narrowest**0.5)
        near = first - reach <= ends[0] and ends[1] <= last + reach
        pairs = tables.NODES_PER_SMOOTHNESS * (ends[1] - ends[0]) / smoothness * len(masses.means)
        if near or pairs < 2 * count:
            table = tables.build(exact, *ends, smoothness, count // 4, errors)
            if table is not None:
                return table
        return super().table(exact, ends, sigma, masses, count, errors)


log_evidence = GaussianFamily().log_evidence


class LaplaceFamily(NoiseFamily):
    """Noise density f(r) = exp(-|r| / b) / (2 b): the balanced L1 loss.

        L(p, y) = |y - p| / b + log sum_k w_k exp(-|mu_k - p| / b)

    Times b it compares with the absolute error. Left or right of all masses the loss is constant:
    a location that far says no more than that the label lies at that end of the range.
    """

    degree, kinks, linear_beyond = 1, (0.0,), 0.0
    log_constant = math.log(2)

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return |r| / b."""
        return residual.abs() / sigma

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return the sign of r over b, 0 at 0 as in the derivative of ``torch.abs``."""
        return residual.sign() / sigma

    def cell_width(self, sigma: float, tolerance: float) -> float:
        """Return the width within which a kink may move."""
        return 8 * tolerance * sigma

    def prior_of(self, weights: Tensor, means: Tensor, variances: Tensor) -> GaussianMixture:
        """Return bins, which are too narrow to have a variance, as masses."""
        return GaussianMixture.unchecked(weights, means, torch.zeros_like(means))

    def of_one_scale(self, masses: Components, scale: Tensor, wanted: Wanted) -> Prepared:
        """Return the exact evidence of any predictions in O((N + K) log K)."""
        # Seen from p, the masses on one side all decay alike when p moves away, so that their sum
        # need be known only at the mass next to p.
        places, weights = masses.means, masses.log_weights.exp()
        if not bool((places.diff() > 0).all()):  # equal places are one mass
            places, owner = torch.unique_consecutive(places, return_inverse=True)
            weights = torch.zeros_like(places).index_add_(0, owner, weights)
        left = _decayed_sums(weights, places / scale, wanted.by_sigma)
        right = _decayed_sums(weights.flip(0), -places.flip(0) / scale, wanted.by_sigma).flip(1)
        nothing = weights.new_tensor([[-math.inf], [0.0]])[: len(left)]
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
            value = total.log() + top
            by_preds = by_sigma = None
            if wanted.by_preds:  # the mass at a kink adds 0 to the slope
                kink = torch.where(to_left == 0, (own.index_select(0, k) - top).exp_(), 0.0)
                by_preds = ((other - one + kink) / (total * scale)).to(part.dtype)
            if wanted.by_sigma:
                distance = one * (left[1].index_select(0, k) + to_left)
                distance += other * (right[1].index_select(0, k) + to_right)
                by_sigma = (distance / (total * scale)).to(part.dtype)
            return Evidence(value.to(part.dtype), by_preds, by_sigma)

        return evidence


def _decayed_sums(weights: Tensor, places: Tensor, moments: bool) -> Tensor:
    """Return log sum_{j <= k} w_j exp(x_j - x_k) per mass k, and the masses' mean distance."""
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

    with h(r) = r^2 / 2 for |r| <= delta and delta (|r| - delta / 2) beyond (Huber, 1964). Times s^2
    it compares with the plain Huber loss, which is half the squared error. A large delta is
    Gaussian noise, a small one Laplace noise of scale s^2 / delta.
    """

    degree = 2

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

    def log_normaliser(self, sigma: Tensor) -> Tensor:
        """Return log Z(s): of |r| <= delta, and of the two tails."""
        u = self.delta / sigma
        core = math.sqrt(2 * math.pi) * torch.erf(u * math.sqrt(0.5))
        return sigma.log() + (core + 2 / u * torch.exp(-0.5 * u**2)).log()

    def steepness(self, sigma: float) -> float:
        """Return delta / s."""
        return self.delta / sigma


class StudentFamily(NoiseFamily):
    """Student's t of scale s and ``df`` degrees of freedom: a loss that gives up on wrong labels.

        L(p, y) = (df + 1) / 2 log(1 + (y - p)^2 / (df s^2)) + log E(p)

    The pull of a label falls off beyond sqrt(df) s (Lange, Little and Taylor, 1989). Times
    2 s^2 df / (df + 1) it compares with the squared error of small errors. A large df is Gaussian
    noise. A location far outside the range says nothing: it is read out as the range's middle.
    """

    def __init__(self, df: float) -> None:
        if not (math.isfinite(df) and df > 0):
            raise ValueError(f"expected positive, finite degrees of freedom, got {df}")
        self.df = float(df)
        self.unit_factor = 2 * df / (df + 1)
        self.steepest = (df + 1) / (2 * math.sqrt(df))  # at sqrt(df) s
        gammas = math.lgamma(df / 2) - math.lgamma((df + 1) / 2)
        self.log_constant = 0.5 * math.log(df * math.pi) + gammas

    def energy(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return (df + 1) / 2 log(1 + r^2 / (df s^2))."""
        return torch.log1p((residual / sigma).square() / self.df) * ((self.df + 1) / 2)

    def slope(self, residual: Tensor, sigma: Tensor) -> Tensor:
        """Return (df + 1) r / (df s^2 + r^2)."""
        z = residual / sigma
        return (self.df + 1) * z / (self.df + z.square()) / sigma


def build_family(kind: FamilyKind, huber_delta: float, student_df: float) -> NoiseFamily:
    """Return the family of that name."""
    if kind == "huber":
        return HuberFamily(huber_delta)
    if kind == "student":
        return StudentFamily(student_df)
    require_one_of("family", kind, get_args(FamilyKind))
    return GaussianFamily() if kind == "gaussian" else LaplaceFamily()
