"""Balancing without re-training: a trained regressor's outputs, remapped as Balanced MSE would."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from depthbal.losses.evidence import compute_dtype, log_evidence
from depthbal.losses.readout import truncated_normal_mean
from depthbal.priors import GaussianMixture, Histogram

# Largest error of the tabulated m(p), as a share of the labels' standard deviation.
TOLERANCE = 1e-7
# Point masses bound m(p): predictions this share of the label range from an end, or beyond it, are
# unreachable, for the location goes to infinity there.
UNREACHABLE_SHARE = 1e-6
START_CELLS = 64
MAX_NODES = 2**18
MAX_DOUBLINGS = 40


def balance_predictions(
    preds: Tensor,
    prior: GaussianMixture | Histogram,
    noise_sigma: Tensor | float,
    label_range: tuple[float, float] | None = None,
) -> Tensor:
    """Return the balanced predictions that a regressor trained with plain MSE implies.

    Setting the derivative of the Balanced MSE to zero at fixed sigma shows that its optimum p(x)
    satisfies m(p(x)) = E_train[y | x], which is what MSE training estimates. So

        p = m^-1(prediction),   m(p) = p + sigma^2 d log E(p) / dp

    m is the mean label of the training world given p: by Theorem 1 the training posterior is
    p_train(y) N(y; p, sigma^2) / E(p), and differentiating log E gives (E_train[y | p] - p) /
    sigma^2. Differentiating again, dm/dp = Var_train[y | p] / sigma^2 > 0: m increases, and one
    monotone table inverts it for any number of predictions. The table is refined until it agrees
    with the exact m within 1e-7 standard deviations of the labels between its nodes.

    With ``label_range`` the balanced world is uniform on the range only, and the location p is read
    out as ``truncated_normal_mean``. It is the baseline that balanced training has to beat.

    Args:
        preds: Predictions of E_train[y | x], any shape, label units, finite.
        prior: Distribution of the training labels; a histogram is its bins' centres, as for BNI.
        noise_sigma: Noise scale sigma > 0 in label units, one element; the regressor's residual on
            the validation split is a good choice.
        label_range: Ends (lo, hi) of the label range in label units, or None for the location p.

    Returns:
        Balanced predictions of the shape of ``preds``, float64 for float64, else float32; detached.
        A histogram cannot explain predictions at or beyond its outermost centres: they get the
        limit, an end of the label range; without one the location of a prediction that is 1e-6 of
        the range of labels inside.

    Raises:
        ValueError: NaN or infinite predictions, a sigma that is not positive or has several
            elements, a prior that is one single label or of vectors.

    Source: the stationarity condition of Balanced MSE (Ren et al., CVPR 2022, Theorem 1); m is
    Tweedie's formula (Efron, Tweedie's Formula and Selection Bias, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # m(p) = (3 p + sigma^2 2) / (3 + sigma^2)
        >>> balance_predictions(torch.tensor([2.0, 5.0]), prior, 1.0)
        tensor([2., 6.])
    """
    sigma = _checked_sigma(noise_sigma)
    bad = int((~torch.isfinite(preds)).sum())
    if bad:
        raise ValueError(f"expected finite predictions, got {bad} NaN or infinite")
    dtype = compute_dtype(preds)
    if preds.numel() == 0:
        return preds.detach().to(dtype)
    # Evaluation loops run in inference mode, in which the derivative of log E is not to be had.
    with torch.inference_mode(False), torch.no_grad():
        mixture = GaussianMixture.from_histogram(prior) if isinstance(prior, Histogram) else prior
        bottom, top = _reachable(mixture)
        wanted = preds.detach().double()
        margin = UNREACHABLE_SHARE * (top - bottom) if math.isfinite(top) else 0.0
        inside = wanted.clamp(bottom + margin, top - margin)
        balanced = invert(_tabulate(inside, mixture, sigma), inside)
        if label_range is not None:
            balanced = truncated_normal_mean(balanced, sigma, label_range)
            balanced = torch.where(wanted <= bottom, label_range[0], balanced)
            balanced = torch.where(wanted >= top, label_range[1], balanced)
    return balanced.to(dtype)


def training_mean(locations: Tensor, prior: GaussianMixture, noise_sigma: Tensor | float) -> Tensor:
    """Return m(p) = E_train[y | p] = p + sigma^2 d log E(p) / dp in float64, detached.

    Args:
        locations: Locations p of any shape, label units.
        prior: Distribution of the training labels.
        noise_sigma: Noise scale sigma > 0 in label units, one element.

    Example:
        >>> labels = GaussianMixture([0.5, 0.5], [-1.0, 1.0], [0.0, 0.0])
        >>> training_mean(torch.tensor([0.0, 1.0]), labels, 1.0)  # tanh(p / sigma^2)
        tensor([0.0000, 0.7616], dtype=torch.float64)
    """
    with torch.enable_grad():
        points = locations.detach().double().clone().requires_grad_()
        (slope,) = torch.autograd.grad(log_evidence(points, prior, noise_sigma).sum(), points)
    return points.detach() + noise_sigma**2 * slope


class MeanTable(NamedTuple):
    """Locations p, increasing, and their m(p), not decreasing; float64, shape (nodes,)."""

    locations: Tensor
    means: Tensor


def invert(table: MeanTable, means: Tensor) -> Tensor:
    """Return p with m(p) = means, linear between the nodes, the end nodes beyond them.

    Example:
        >>> table = MeanTable(torch.tensor([0.0, 10.0]), torch.tensor([1.0, 2.0]))
        >>> invert(table, torch.tensor([1.25, 7.0]))
        tensor([ 2.5000, 10.0000])
    """
    inside = means.clamp(table.means[0], table.means[-1]).contiguous()
    right = torch.searchsorted(table.means, inside).clamp(1, len(table.means) - 1)
    start, stop = table.means[right - 1], table.means[right]
    share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
    return torch.lerp(table.locations[right - 1], table.locations[right], share)


def _checked_sigma(noise_sigma: Tensor | float) -> float:
    sigma = torch.as_tensor(noise_sigma, dtype=torch.float64)
    if sigma.numel() != 1:
        raise ValueError(f"expected noise_sigma with one element, got shape {tuple(sigma.shape)}")
    if not (sigma > 0 and torch.isfinite(sigma)):
        raise ValueError(f"expected a positive noise_sigma in label units, got {noise_sigma}")
    return float(sigma)


def _reachable(prior: GaussianMixture) -> tuple[float, float]:
    """Return the open interval of values that m takes."""
    if prior.means.ndim != 1:
        raise ValueError(f"expected a prior of scalar labels, got means {tuple(prior.means.shape)}")
    present = prior.weights > 0
    if (prior.variances[present] > 0).any():
        return -math.inf, math.inf
    bottom, top = (float(end) for end in prior.means[present].aminmax())
    if not bottom < top:
        raise ValueError(f"expected a prior of at least 2 distinct labels, got only {top}")
    return bottom, top


def _tabulate(wanted: Tensor, prior: GaussianMixture, sigma: float) -> MeanTable:
    """Return a table of m that covers the wanted means."""

    def mean(locations: Tensor) -> Tensor:
        return training_mean(locations, prior, sigma)

    centre = prior.weights @ prior.means
    spread = prior.weights @ (prior.variances + (prior.means - centre) ** 2)
    low, high = _bracket(mean, wanted, sigma)
    nodes = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64, device=wanted.device)
    return _refine(mean, nodes, TOLERANCE * math.sqrt(float(spread)))


def _bracket(mean: Callable[[Tensor], Tensor], wanted: Tensor, sigma: float) -> tuple[float, float]:
    """Return locations whose means lie at or beyond the smallest and largest one wanted."""
    ends = torch.stack(wanted.aminmax())
    step = torch.tensor([-sigma, sigma], dtype=torch.float64, device=wanted.device)
    # One step more than needed, so that the two differ.
    locations = ends + step
    for _ in range(MAX_DOUBLINGS):
        missing = (mean(locations) - ends) * step < 0
        if not missing.any():
            break
        step = torch.where(missing, 2 * step, step)
        locations = torch.where(missing, ends + step, locations)
    low, high = locations.tolist()
    return low, high


def _refine(mean: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float) -> MeanTable:
    """Quarter every cell in which m is not linear within the tolerance, and again.

    Three points inside a cell are compared: in its middle alone, a step of m that lies exactly
    there would look linear.
    """
    means = mean(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype, device=nodes.device)[:, None]
    known = [(nodes, means)]
    starts, widths = nodes[:-1], nodes.diff()
    left, rise = means[:-1], means.diff()
    count = len(nodes)
    while starts.numel() and count < MAX_NODES:
        inner = starts + widths * shares[1:-1]
        exact = mean(inner)
        known.append((inner.flatten(), exact.flatten()))
        count += inner.numel()
        curved = ((exact - left - rise * shares[1:-1]).abs() > tolerance).any(0)
        values = torch.cat([left[None], exact, (left + rise)[None]])[:, curved]
        starts = (starts + widths * shares[:-1])[:, curved].flatten()
        widths = (widths[curved] / 4).expand(4, -1).flatten()
        left, rise = values[:-1].flatten(), values.diff(dim=0).flatten()
    locations, order = torch.cat([part[0] for part in known]).sort()
    means = torch.cat([part[1] for part in known])[order]
    # Rounding must not make the table decrease where m is flat.
    return MeanTable(locations, means.cummax(0).values)
