"""The evidence of Laplace noise over point masses: the balance of the L1 loss.

    log E(p) = log sum_k w_k exp(-|mu_k - p| / b) / (2 b)

Seen from p, the masses on one side all decay by the same factor when p moves away from them. So
their sum needs to be known only at the mass that is next to p, and one scan from either side gives
it for every mass: O((N + K) log K) for N predictions and K masses, exactly.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from depthbal.losses.families.point_masses import (
    PointEvidence,
    PointMasses,
    evidence_of_points,
    in_chunks,
    point_masses,
    sum_or_table,
)
from depthbal.losses.kernel.evaluate import SigmaOf
from depthbal.priors import GaussianMixture

# Masses that one pass of a scan joins; the passes work on this many times fewer masses each.
SCAN_GROUP = 8
# Numbers per prediction that the sum by sides needs at once.
SIDE_NUMBERS = 4


def laplace_log_evidence(
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    *,
    sigma_of: SigmaOf | None = None,
    tolerance: float = 1e-5,
    memory_budget_mb: float = 256,
) -> Tensor:
    """Return log of sum_k w_k exp(-|mu_k - p| / b) / (2 b), elementwise, with b = ``noise_sigma``.

    For one b the sum is exact, in float64 whatever the predictions are, in O((N + K) log K). A
    b of its own for every label takes the sum over all N x K pairs, chunk by chunk; where b is the
    function ``sigma_of`` of the prediction, many float32 predictions are interpolated between such
    sums. Gradients flow to ``preds`` and ``noise_sigma``; at a mass, where |mu - p| has a kink, the
    mass itself adds 0 to the slope, as in the derivative of ``torch.abs``.

    Args:
        preds: Predicted labels of any shape, label units.
        prior: p_train(y) as point masses: histogram bins (BNI) or the batch's labels (BMC).
        noise_sigma: Scale b > 0 of the noise, its mean absolute error, label units: one number, or
            one per label.
        sigma_of: Where b is a function of the prediction, that function.
        tolerance: Largest error of log E, b dlogE/dp and b dlogE/db where a table serves.
        memory_budget_mb: Largest size of the temporaries.

    Returns:
        Log evidence of the shape of ``preds``, in float32 or float64.

    Raises:
        ValueError: A prior of vectors or with a variance, or a scale that is not positive or of
            another shape.

    Source: Theorem 1 of Balanced MSE (Ren et al., CVPR 2022) with a Laplace density. The paper
    works out Gaussian noise only: this goes beyond it.

    Example:
        >>> prior = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])
        >>> laplace_log_evidence(torch.zeros(2), prior, 1.0)  # log exp(-1) / 2
        tensor([-1.6931, -1.6931])
    """
    masses = point_masses(prior, preds.device)

    def compute(flat: Tensor, scale: Tensor) -> PointEvidence:
        if scale.ndim == 0:
            sides = _sides(masses, scale.double())

            def by_sides(part: Tensor, scale: Tensor, _: PointMasses) -> PointEvidence:
                return _sum_of_sides(part, scale, sides)

            return in_chunks(by_sides, flat, scale, masses, SIDE_NUMBERS, memory_budget_mb)
        return sum_or_table(
            sum_over_masses,
            flat,
            scale,
            masses,
            masses.locations,
            sigma_of=sigma_of,
            tolerance=tolerance,
            memory_budget_mb=memory_budget_mb,
        )

    return evidence_of_points(preds, noise_sigma, compute)


def sum_over_masses(preds: Tensor, scale: Tensor, masses: PointMasses) -> PointEvidence:
    """Return the evidence of flat predictions from all pairs with masses."""
    rate = (1 / scale)[..., None]
    distance = masses.locations - preds[:, None]
    decay = distance.abs() * rate
    terms = masses.weights.log() - decay
    log_sum = torch.logsumexp(terms, dim=1)
    posterior = torch.exp(terms - log_sum[:, None])
    by_preds = (posterior * distance.sign()).sum(1) / scale
    by_scale = ((posterior * decay).sum(1) - 1) / scale
    return PointEvidence(log_sum - (2 * scale).log(), by_preds, by_scale)


class _Sides(NamedTuple):
    """The masses at or left of p, and those right of p, by the number k of the former.

    Both parts are (K + 1,) per row. Rows of ``left``: log of the sum of w exp(-distance / b), seen
    from the mass next to p; the mean of distance / b under these terms; that mass's location;
    its own weight. Rows of ``right``: the first three.
    """

    left: Tensor
    right: Tensor


def _sides(masses: PointMasses, scale: Tensor) -> _Sides:
    weights, locations = masses
    left, left_mean = _decayed_sums(weights, locations, scale)
    right, right_mean = _decayed_sums(weights.flip(0), -locations.flip(0), scale)
    # Equal locations are one mass.
    group = functional.pad((locations.diff() > 0).long().cumsum(0), (1, 0))
    own = torch.zeros_like(weights).index_add(0, group, weights)[group]
    nothing = weights.new_tensor([-math.inf, 0.0, 0.0, 0.0])[:, None]
    at_left = torch.stack([left.log(), left_mean, locations, own])
    at_right = torch.stack([right.flip(0).log(), right_mean.flip(0), locations])
    return _Sides(torch.cat([nothing, at_left], 1), torch.cat([at_right, nothing[:3]], 1))


def _sum_of_sides(preds: Tensor, scale: Tensor, sides: _Sides) -> PointEvidence:
    points, scale = preds.double(), scale.double()
    index = torch.searchsorted(sides.left[2, 1:].contiguous(), points, right=True)
    left, left_mean, left_end, own = sides.left.index_select(1, index).unbind(0)
    right, right_mean, right_end = sides.right.index_select(1, index).unbind(0)
    to_left, to_right = (points - left_end) / scale, (right_end - points) / scale
    left, right = left - to_left, right - to_right
    log_sum = torch.logaddexp(left, right)
    left_share, right_share = torch.exp(left - log_sum), torch.exp(right - log_sum)
    at_kink = torch.where(points == left_end, own * torch.exp(-log_sum), 0.0)
    by_preds = (right_share - left_share + at_kink) / scale
    distance = left_share * (left_mean + to_left) + right_share * (right_mean + to_right)
    return PointEvidence(log_sum - (2 * scale).log(), by_preds, (distance - 1) / scale)


def _decayed_sums(weights: Tensor, locations: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Return S_k and T_k / S_k of the masses up to each mass k, at increasing locations.

    S_k = sum_{j <= k} w_j exp(-d_jk) and T_k the same sum with terms times d_jk, where d_jk =
    (mu_k - mu_j) / b. As w_k <= S_k <= 1, nothing overflows, and what underflows does not count.
    """
    sums, moments = _scan(weights, torch.zeros_like(weights), locations / scale)
    return sums, moments / sums


def _scan(sums: Tensor, moments: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return the decayed sums of S and T up to each entry, by groups of 8 and then over groups."""
    count = len(sums)
    if count == 1:
        return sums, moments
    rows = -(-count // SCAN_GROUP)
    padding = (0, rows * SCAN_GROUP - count)
    last = positions[-1:].expand(padding[1])
    places = torch.cat([positions, last]).view(rows, SCAN_GROUP).T.contiguous()
    parts = [
        functional.pad(part, padding).view(rows, SCAN_GROUP).T.clone() for part in (sums, moments)
    ]
    within, moment = parts
    gaps = places.diff(dim=0)
    for column, gap in enumerate(gaps):
        decay = torch.exp(-gap)
        moment[column + 1] += decay * (moment[column] + gap * within[column])
        within[column + 1] += decay * within[column]
    if rows > 1:
        before, moment_before = _scan(within[-1], moment[-1], places[-1])
        gap = places[:, 1:] - places[-1, :-1]
        decay = torch.exp(-gap)
        moment[:, 1:] += decay * (moment_before[:-1] + gap * before[:-1])
        within[:, 1:] += decay * before[:-1]
    return within.T.flatten()[:count], moment.T.flatten()[:count]
