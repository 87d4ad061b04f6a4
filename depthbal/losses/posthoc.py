"""The training world's mean label m(p): its inverse balances trained regressors, its falls warn.

    m(p) = E_train[y | p] = p + sigma^2 d log E(p) / dp      (sigma held fixed in the derivative)

The remap of a plain regressor's outputs, as Balanced MSE would have trained it, reads a table of m
backwards. At the optimum of the balanced loss m(p(x)) = E_train[y | x]: a constant sigma makes m
increase from the smallest label to the largest, but one that grows with p flattens the training
posterior faster than p moves it. Beyond some p, m falls back towards the mean label, labels above
its maximum have no location, and their gradient pushes p up for ever: ``guard_noise`` looks there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from depthbal.losses.base import checked_range
from depthbal.losses.kernel.evidence import Components, SigmaOf, Wanted, exact_evidence
from depthbal.losses.noise import DepthNoise, NoiseModule
from depthbal.losses.readout import truncated_normal_mean
from depthbal.losses.reduction import compute_dtype
from depthbal.priors import GaussianMixture, Histogram

# Largest error of the tabulated m(p), as a share of the labels' standard deviation.
TOLERANCE = 1e-7
# At a distance d from the labels float64 knows m to this number times d (d / sigma)^2, because the
# posterior's exponents are as large as (d / sigma)^2 / 2 and p cancels; finer is only noise.
ROUNDING = 1e-15
START_CELLS = 64
MAX_LABEL_NODES = 1024
MAX_NODES = 2**18
MAX_QUARTERINGS = 24
# Pieces of doubling width to either side: the table ends a million widths of the first one away,
# where rounding is still far below the tolerance.
MAX_PIECES = 20
# Point masses bound m(p): predictions this share of the label range from an end, or beyond it, are
# unreachable, for the location goes to infinity there.
UNREACHABLE_SHARE = 1e-6
# Of the guard: m approaches the largest of point masses only asymptotically, and this share of the
# label range counts as reaching it, about a bin of the depth benchmark (0.1 of 9.3 m); a fall of m
# by less than the second is rounding.
REACH_SHARE, FALL_SHARE = 0.01, 1e-6
BISECTIONS = 20


def balance_predictions(
    preds: Tensor,
    prior: GaussianMixture | Histogram,
    noise_sigma: Tensor | float,
    label_range: tuple[float, float] | None = None,
) -> Tensor:
    """Return the balanced predictions that a regressor trained with plain MSE implies.

    The optimum p(x) of Balanced MSE at fixed sigma satisfies m(p(x)) = E_train[y | x], which is
    what MSE training estimates, so

        p = m^-1(prediction),   m(p) = p + sigma^2 d log E(p) / dp

    with dm/dp = Var_train[y | p] / sigma^2 > 0: one table inverts m for any number of predictions,
    within 1e-7 standard deviations of the labels between its nodes. With ``label_range`` the
    balanced world is uniform on the range only, and p is read out as ``truncated_normal_mean``. It
    is the baseline that balanced training has to beat; for many batches make a ``BalanceMap``.

    Args:
        preds: Predictions of E_train[y | x], any shape, label units, finite.
        prior: Distribution of the training labels; a histogram is its bins' centres, as for BNI.
        noise_sigma: Noise scale sigma > 0 in label units, one element; the regressor's residual on
            the validation split is a good choice.
        label_range: Ends (lo, hi) of the label range in label units, or None for the location p.

    Returns:
        Balanced predictions of the shape of ``preds``, float64 for float64, else float32; detached.
        A histogram cannot explain predictions at or beyond its outermost centres: they get the
        limit, an end of the label range, or the location of a prediction 1e-6 of the range inside.

    Raises:
        ValueError: NaN or infinite predictions, a prior that is one single label or of vectors.

    Source: Ren et al., CVPR 2022, Theorem 1; m is Tweedie's formula (Efron, 2011).

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])  # m(p) = (3 p + sigma^2 2) / (3 + sigma^2)
        >>> balance_predictions(torch.tensor([2.0, 5.0]), prior, 1.0)
        tensor([2., 6.])
    """
    return BalanceMap(prior, noise_sigma, label_range)(preds)


class BalanceMap:
    """The map of ``balance_predictions`` for one prior and one sigma, its table built once."""

    def __init__(
        self,
        prior: GaussianMixture | Histogram,
        noise_sigma: Tensor | float,
        label_range: tuple[float, float] | None = None,
    ) -> None:
        sigma = torch.as_tensor(noise_sigma, dtype=torch.float64)
        if sigma.numel() != 1 or not 0 < sigma < math.inf:
            raise ValueError(
                f"expected a positive noise_sigma in label units, one element, got {noise_sigma}"
            )
        self.noise_sigma = float(sigma)
        self.label_range = None if label_range is None else checked_range(label_range)
        mixture = GaussianMixture.of_scalars(prior)
        present = mixture.weights > 0
        bottom, top = (float(end) for end in mixture.means[present].aminmax())
        margin = 4 * self.noise_sigma
        ends = bottom - margin, top + margin
        if (mixture.variances[present] > 0).any():
            bottom, top = -math.inf, math.inf
        elif not bottom < top:
            raise ValueError(f"expected a prior of at least 2 distinct labels, got only {top}")
        self._reachable = bottom, top  # the open interval of values that m takes
        self._table = MeanTable(mixture, self.noise_sigma, ends)

    def locations(self, preds: Tensor) -> Tensor:
        """Return the locations p of predictions of E_train[y | x], before any read-out."""
        preds = preds.detach()
        bad = int((~torch.isfinite(preds)).sum())
        if bad:
            raise ValueError(f"expected finite predictions, got {bad} NaN or infinite")
        bottom, top = self._reachable
        margin = UNREACHABLE_SHARE * (top - bottom) if math.isfinite(top) else 0.0
        found = self._table.invert(preds.double().clamp(bottom + margin, top - margin))
        return found.to(compute_dtype(preds))

    def __call__(self, preds: Tensor) -> Tensor:
        """Return the balanced predictions: the locations, read out on the label range if any."""
        if self.label_range is None:
            return self.locations(preds)
        locations = self.locations(preds.double())  # which the read-out magnifies
        low, high = self.label_range
        balanced = truncated_normal_mean(locations, self.noise_sigma, self.label_range)
        bottom, top = self._reachable
        balanced = torch.where(preds <= bottom, low, balanced)
        balanced = torch.where(preds >= top, high, balanced)
        return balanced.to(compute_dtype(preds))


class MeanTable:
    """Locations p, increasing, and their m(p), tabulated as far as they are asked for.

    A first piece lies between the given ends; further ones, each twice as wide as the one before,
    continue it to either side, the same ones whatever is asked first. Each is refined until m is
    linear between nodes within the tolerance (default 1e-7 standard deviations of the labels).
    """

    def __init__(
        self,
        prior: GaussianMixture,
        noise_sigma: float | SigmaOf,
        first: tuple[float, float],
        tolerance: float | None = None,
    ) -> None:
        self._mixture = Components.of(prior, torch.device("cpu"))
        weights, means = self._mixture.log_weights.exp(), self._mixture.means
        spread = weights @ (self._mixture.variances + (means - weights @ means) ** 2)
        self._tolerance = tolerance or TOLERANCE * math.sqrt(float(spread))
        self._noise, self._first = noise_sigma, first
        self._pieces = {-1: 0, 1: 0}
        # At a small sigma m is a staircase with a step between two labels; an even grid could have
        # the steps' own spacing and would see a straight line.
        labels = means[weights > 0].sort().values
        labels = labels[:: math.ceil(len(labels) / MAX_LABEL_NODES)]
        self.locations, self.means = self._piece(*first, labels)

    def climb(self, side: int, goal: float, fall: float = math.inf) -> tuple[float, float]:
        """Add pieces at the lower (-1) or upper (1) end until m gets to the goal or falls by more.

        Returned is how far m gets before that, and where it falls, infinite where it does not.
        """
        while True:
            within = side * self.locations >= side * self._first[0]
            places, means = self.locations[within], side * self.means[within]
            if side < 0:
                places, means = places.flip(0), means.flip(0)
            highest = means.cummax(0).values
            falls = (highest - means > fall).nonzero()
            if len(falls):
                return side * float(highest[falls[0]]), float(places[falls[0]])
            if highest[-1] >= side * goal or self._pieces[side] >= MAX_PIECES:
                return side * float(highest[-1]), side * math.inf
            width = (self._first[1] - self._first[0]) * 2 ** self._pieces[side]
            end = float(self.locations[0 if side < 0 else -1])
            found = self._piece(*sorted((end, end + side * width)))
            for name, more in zip(("locations", "means"), found, strict=True):
                known = getattr(self, name)  # the shared node once
                parts = (known, more[1:]) if side > 0 else (more[:-1], known)
                setattr(self, name, torch.cat(parts))
            self._pieces[side] += 1

    def invert(self, means: Tensor) -> Tensor:
        """Return p with m(p) = means (float64, finite), linear between nodes, at most the ends."""
        if not means.numel():
            return means
        low, high = torch.stack(means.aminmax()).tolist()
        self.climb(-1, low)
        self.climb(1, high)
        # Rounding must not make the table decrease where m is flat.
        table = self.means.cummax(0).values.to(means.device)
        values = self.locations.to(means.device)
        inside = means.clamp(table[0], table[-1]).contiguous()
        right = torch.searchsorted(table, inside).clamp(1, len(table) - 1)
        start, stop = table[right - 1], table[right]
        share = (inside - start) / (stop - start).clamp(min=torch.finfo(means.dtype).tiny)
        return torch.lerp(values[right - 1], values[right], share)

    def _piece(self, low: float, high: float, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return refined locations between two ends, the given ones among them, and their m."""
        # Tensors that are kept must not belong to the evaluation loop's inference mode.
        with torch.inference_mode(False), torch.no_grad():
            nodes = torch.linspace(low, high, START_CELLS + 1, dtype=torch.float64)
            if among is not None:
                nodes = torch.cat([nodes, among[(among > low) & (among < high)]]).sort().values
            smallest, largest = self._mixture.means.aminmax()
            distance = float(torch.maximum(smallest - nodes[0], nodes[-1] - largest))
            relative = max(1.0, distance / float(self._sigma(nodes).min()))
            return refine(
                self._mean, nodes, max(self._tolerance, ROUNDING * distance * relative**2)
            )

    def _sigma(self, p: Tensor) -> Tensor:
        sigma = self._noise(p).detach() if callable(self._noise) else self._noise
        return torch.as_tensor(sigma, dtype=torch.float64)

    def _mean(self, p: Tensor) -> Tensor:
        points = p.flatten()
        noise = self._sigma(points)
        slope = exact_evidence(points, noise, self._mixture, Wanted(by_sigma=False)).by_preds
        assert slope is not None
        return (points + noise**2 * slope).view(p.shape)


def refine(
    function: Callable[[Tensor], Tensor], nodes: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Quarter the cells between nodes until a function is linear in each within the tolerance.

    Three points are compared: in the middle alone, a step that lies exactly there looks linear.
    """
    values = function(nodes)
    shares = torch.linspace(0, 1, 5, dtype=nodes.dtype)[:, None]
    known = [(nodes, values)]
    starts, widths = nodes[:-1], nodes.diff()
    left, rise = values[:-1], values.diff()
    count = len(nodes)
    for _ in range(MAX_QUARTERINGS):
        if not starts.numel() or count >= MAX_NODES:
            break
        inner = starts + widths * shares[1:-1]
        exact = function(inner)
        known.append((inner.flatten(), exact.flatten()))
        count += inner.numel()
        curved = ((exact - left - rise * shares[1:-1]).abs() > tolerance).any(0)
        corners = torch.cat([left[None], exact, (left + rise)[None]])[:, curved]
        starts = (starts + widths * shares[:-1])[:, curved].flatten()
        widths = (widths[curved] / 4).expand(4, -1).flatten()
        left, rise = corners[:-1].flatten(), corners.diff(dim=0).flatten()
    locations, order = torch.cat([part[0] for part in known]).sort()
    return locations, torch.cat([part[1] for part in known])[order]


def check_noise(
    sigma_of: SigmaOf, prior: GaussianMixture | Histogram, label_range: tuple[float, float]
) -> str | None:
    """Say which labels have no location, if any, under a noise scale, of locations on the CPU."""
    low, high = checked_range(label_range)
    mixture = GaussianMixture.of_scalars(prior)
    reach, fall = REACH_SHARE * (high - low), FALL_SHARE * (high - low)
    present = mixture.weights > 0
    smallest, largest = low, high
    if not (mixture.variances[present] > 0).any():
        bottom, top = mixture.means[present].aminmax()
        smallest, largest = max(low, float(bottom)), min(high, float(top))
    table = MeanTable(mixture, sigma_of, label_range, fall / 2)
    highest, fallen_at = table.climb(1, largest - reach, fall)
    lowest, _ = table.climb(-1, smallest + reach, fall)
    if fallen_at <= high:
        return "the predicted label does not grow with the network's output"
    if lowest <= smallest + reach and highest >= largest - reach:
        return None
    lowest, highest = max(lowest, smallest), min(highest, largest)
    return f"only labels from {lowest:.2f} to {highest:.2f} can be predicted"


def guard_noise(
    criterion: nn.Module, histogram: Histogram | None, label_range: tuple[float, float]
) -> str | None:
    """Check a loss's noise, reduce the slope of our ``DepthNoise`` until it passes, and say so.

    The prior and the label range are the loss's own; for losses without, such as BMC, the given
    ones. Losses whose noise does not follow the predictions pass; any noise counts as Gaussian.
    """
    noise = getattr(criterion, "noise", None)
    prior = getattr(criterion, "prior", None) or histogram
    if not isinstance(noise, NoiseModule) or not noise.depends_on_preds or prior is None:
        return None
    if getattr(criterion, "event_dim", None):
        return None
    limits = getattr(criterion, "label_range", None) or label_range
    state = [*noise.parameters(), *noise.buffers()]
    device = state[0].device if state else None

    def check() -> str | None:
        return check_noise(lambda p: noise(p.to(device)).detach().cpu(), prior, limits)

    failure = check()
    if failure is None:
        return None
    if not isinstance(noise, DepthNoise):
        return (
            f"with the noise {type(noise).__name__} {failure}; let sigma grow less with the "
            "prediction, or cap it"
        )
    slope = noise.slope.detach().clone()
    kept, failing = 0.0, 1.0
    with torch.no_grad():
        for _ in range(BISECTIONS):
            share = (kept + failing) / 2
            noise.slope.copy_(share * slope)
            kept, failing = (share, failing) if check() is None else (kept, share)
        noise.slope.copy_(kept * slope)
    return (
        f"the noise slope b = {slope.item():.4g} was reduced to {noise.slope.item():.4g}: with it "
        f"{failure}; a smaller max_sigma (now {noise.max_sigma:g}) allows a steeper slope"
    )
