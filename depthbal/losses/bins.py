"""A label's distribution as logits of bins: two-hot cross-entropy, read out for any world."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from depthbal.losses.base import (
    MAX_LENGTHS,
    RegressionLoss,
    require_matching,
    require_one_of,
    require_world,
)
from depthbal.losses.buffers import RequiredBuffers
from depthbal.losses.readout import LEVEL
from depthbal.losses.reduction import compute_dtype, first_order, hide, reduce
from depthbal.priors import GaussianMixture, Histogram, Spacing, World
from depthbal.priors.histogram import FloatArray

PARTS = ("mean", "median", "low", "high", "raw")
"""What ``BinsLoss.decode`` gives: in the chosen world, the last one in that of the training."""

CHUNK_NUMBERS = 2**18  # logits whose temporaries stay in a CPU's cache
DEVICE_NUMBERS = 2**26
WORLD_BINS = 4096  # of a named world's density
NEGLIGIBLE = 1e-12  # share of the training labels that rounding may move between bins
NEVER = 1e-30  # share of labels that a world has not; its logarithm is finite


def two_hot_shares(histogram: Histogram, centers: FloatArray) -> FloatArray:
    """Return the mean two-hot target (K,) of labels that are even within a histogram's bins.

    A label between two centres is shared by them so that its mean is exact; one beyond the ends
    is the end's. The prior of two-hot training has to be this one, not counts of bins.
    """
    densities, edges = histogram.densities, histogram.edges
    # Piece by piece: a difference of cumulative sums would leave rounding where no label is.
    start, stop = (
        np.clip(ends[:, None], centers[:-1], centers[1:]) for ends in (edges[:-1], edges[1:])
    )
    upward = ((start + stop) / 2 - centers[:-1]) / np.diff(centers)
    shares = np.zeros(len(centers))
    shares[:-1] += densities @ ((stop - start) * (1 - upward))
    shares[1:] += densities @ ((stop - start) * upward)
    shares[0] += densities @ np.diff(edges.clip(max=centers[0]))
    shares[-1] += densities @ np.diff(edges.clip(min=centers[-1]))
    return shares


def read_bins(
    logits: Tensor, centers: Tensor, offsets: Tensor, quantiles: Sequence[float] = ()
) -> Tensor:
    """Return mean and quantiles (1 + Q, n) of softmax(logits + offsets), logits (K, n).

    The mean is that of the centres (K,); for quantiles the probability of a bin is spread evenly
    between the middles of its centre and the neighbours'.
    """
    shares = torch.softmax(logits + offsets[:, None], 0)
    found = [centers @ shares]
    below = shares.cumsum(0) if quantiles else shares
    middles = (centers[1:] + centers[:-1]) / 2
    edges = torch.cat([centers[:1], middles, centers[-1:]])
    for quantile in quantiles:
        k = (below < quantile).sum(0, keepdim=True).clamp(max=len(centers) - 1)
        own = shares.gather(0, k)
        part = (quantile - below.gather(0, k) + own) / own.clamp(min=1e-12)
        found.append(torch.lerp(edges[k], edges[k + 1], part.clamp(0, 1))[0])
    return torch.stack(found)


class BinsLoss(RegressionLoss):
    """Cross-entropy of K logits with the two-hot label, whose read-out serves every world and tau.

        L = log sum_k exp l_k - (1 - w) l_j - w l_(j+1),   y = (1 - w) c_j + w c_(j+1)

    Nothing is balanced in training. The read-out is of softmax(l_k + tau log W_k / pi_k), Theorem 1
    of Balanced MSE with the network's own density in the place of the Gaussian, where pi are the
    mean two-hot targets of the training labels and W those of the world to predict for: at
    ``tau=0`` that of the training, at 1 ``relative_to``, between them p_train^(1 - tau) W^tau. Both
    can be set afterwards (``set_world``). Bins without training labels are never predicted. The
    last bin's is also the probability of labels ``beyond`` the range (see ``log_ratio``).

    Args:
        prior: Histogram of the training labels, a file that ``Histogram.save`` wrote, or None: then
            ``set_prior(histogram)`` or ``load_state_dict`` must give it before use.
        n_bins: K; the network needs a head of as many bins.
        spacing: Centres from end to end of the label range (by default the histogram's):
            ``"uniform"``, ``"log"``, or ``"quantile"``, as many training labels between any two.
        tau, relative_to: Share of the balancing, and the world to balance for, as for ``GAILoss``.
        options: ``reduction`` and ``label_range`` of ``RegressionLoss``.

    Shape:
        logits (B, K), labels and mask (B,); or logits (B, K, ...), labels and mask (B, 1, ...)

    Raises:
        ValueError: Arguments or shapes that are not as described.

    Source: Menon et al., Long-tail learning via logit adjustment, ICLR 2021, for classes; Ren et
    al., CVPR 2022, Theorem 1.

    Example:
        >>> loss = BinsLoss(Histogram([0.0, 1.0, 2.0], [6, 2]), n_bins=3)
        >>> logits = torch.tensor([[0.0, 2.0, 0.0]])
        >>> round(loss(logits, torch.tensor([1.5])).item(), 4)
        1.2395
        >>> loss.readout(logits), loss.set_world(tau=0.0).readout(logits)
        (tensor([1.1326]), tensor([1.0000]))
    """

    balances = True
    readouts = (*RegressionLoss.readouts, "median")
    n_parts = len(PARTS)

    def __init__(
        self,
        prior: Histogram | str | None = None,
        *,
        n_bins: int = 64,
        spacing: Spacing = "uniform",
        tau: float = 1.0,
        relative_to: str = "uniform",
        **options: Any,
    ) -> None:
        super().__init__(event_dim=0, **options)
        require_one_of("spacing", spacing, get_args(Spacing))
        if n_bins < 2:
            raise ValueError(f"expected at least 2 bins, got {n_bins}")
        self.n_bins, self.spacing = n_bins, spacing
        self.tau, self.relative_to = tau, relative_to
        self.init_args |= {"n_bins": n_bins, "spacing": spacing}
        self.set_world()
        self._prior = RequiredBuffers("centers", "shares")
        if prior is not None:
            self.set_prior(Histogram.load(prior) if isinstance(prior, str) else prior)

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Place the bins and take the training labels' histogram; a mixture is a ValueError."""
        if not isinstance(prior, Histogram):
            raise ValueError(f"expected a Histogram to count bins, got a {type(prior).__name__}")
        centers = prior.places(self.n_bins, self.spacing, self.label_range)
        shares = two_hot_shares(prior, centers)
        if prior.beyond:  # one more, for the last bin
            known = prior.total / (prior.total + prior.beyond)
            shares = np.append(known * shares, 1 - known)
        self._prior.set(torch.from_numpy(centers), torch.from_numpy(shares))

    @property
    def centers(self) -> Tensor:
        """Centres of the bins (K,), label units, float64."""
        return self._prior.get("centers")

    @property
    def initial_logits(self) -> Tensor:
        """Logits (K,) of the training labels' distribution, to start a network's bias from."""
        shares = self._prior.get("shares")
        shares, beyond = shares[: self.n_bins].clone(), shares[self.n_bins :]
        shares[-1] += beyond.sum()
        return shares.clamp(min=1e-6).log()

    # ---- training ----

    def forward(
        self,
        preds: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        beyond: Tensor | None = None,
        *,
        enlarge: bool = False,
    ) -> Tensor:
        """Return the reduced loss of logits; see ``RegressionLoss.forward``.

        ``enlarge`` allows maps of logits of another size than the labels: they are resized to them
        (bilinearly, align_corners=True) one image at a time, now and in the backward pass.
        """
        if preds.ndim < 2 or preds.shape[1] != self.n_bins:
            raise ValueError(
                f"expected logits (B, {self.n_bins}, ...), one per bin, got {tuple(preds.shape)}: "
                "give the network a head of as many bins"
            )
        first = part_of(preds, 0)
        if enlarge:
            first = functional.interpolate(first, target.shape[-2:])
        require_matching(first, target, mask, 0)
        if beyond is not None:  # however far, they are the last bin's
            target = target.masked_fill(beyond, self.end_of_range(beyond, target))
            mask = None if mask is None else mask | beyond
        with torch.autocast(preds.device.type, enabled=False):
            return self.reduced(preds, target.detach(), mask)

    def reduced(
        self, preds: Tensor, target: Tensor, mask: Tensor | None, beyond: Tensor | None = None
    ) -> Tensor:
        """Return the reduced loss of tensors that match, of any floating type, not yet finite."""
        values = self.elementwise(preds, target, mask)
        self.require_finite(values, target, mask)
        return reduce(values, mask, self.reduction)

    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the cross-entropy of every label in nats."""
        labels = hide(target.to(compute_dtype(preds)), mask).nan_to_num()
        given = [labels] if mask is None else [labels, mask]
        if preds.shape[2:] == target.shape[2:]:
            return self._entropy(preds, *given)
        images = zip(*(torch.split(part, 1) for part in (preds, *given)), strict=True)
        return torch.cat([checkpoint(self._entropy, *one, use_reentrant=False) for one in images])

    def _entropy(self, preds: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        if preds.shape[2:] != labels.shape[2:]:
            size, preds = labels.shape[-2:], preds.to(labels.dtype)
            preds = functional.interpolate(preds, size, mode="bilinear", align_corners=True)
        values: Tensor = _TwoHotEntropy.apply(preds, labels, mask, self.centers.to(labels))
        return values

    # ---- read-out ----

    def set_world(self, tau: float | None = None, relative_to: str | None = None) -> "BinsLoss":
        """Choose the world that the read-outs are of, None leaves it; return the loss itself."""
        tau = self.tau if tau is None else tau
        relative_to = self.relative_to if relative_to is None else str(relative_to)
        require_world(relative_to, tau)
        self.tau, self.relative_to = tau, relative_to
        self.init_args |= {"tau": tau, "relative_to": relative_to}
        return self

    def log_ratio(self) -> tuple[Tensor, Tensor]:
        """Return log W / pi of every bin (K,), 0 where pi is, and whether it has training labels.

        Where there are labels beyond the range, the last bin has the ratio of the last tenth of
        bins: the density of training labels goes on beyond as it is there, in either world.

        Raises:
            ValueError: A world that does not exist on the label range, or no such file.
        """
        shares, centers = (self._prior.get(key).cpu().numpy() for key in ("shares", "centers"))
        if self.relative_to in get_args(World):
            world = Histogram(np.linspace(centers[0], centers[-1], WORLD_BINS + 1))
            if self.relative_to == "log_uniform" and not centers[0] > 0:
                raise ValueError(f"log_uniform needs labels above 0, they begin at {centers[0]:g}")
            y = world.centers
            rising = np.exp(y - y[-1]) if self.relative_to == "exp_uniform" else y**0
            world.counts = 1 / y if self.relative_to == "log_uniform" else rising
        else:
            world = Histogram.load(self.relative_to)
        masses = np.clip(two_hot_shares(world, centers), NEVER, None)
        shares, beyond = np.split(shares, [self.n_bins])
        if len(beyond):
            last = slice(-max(1, self.n_bins // 10), None)
            rarest = masses[last].sum() / MAX_LENGTHS
            shares[-1] = masses[-1] * max(shares[last].sum(), rarest) / masses[last].sum()
        seen = shares > NEGLIGIBLE
        ratio = np.where(seen, np.log(masses) - np.log(np.where(seen, shares, 1)), 0.0)
        device = self.centers.device
        return torch.from_numpy(ratio).to(device), torch.from_numpy(seen).to(device)

    def readout(self, preds: Tensor) -> Tensor:
        """Return the mean labels of logits in the chosen world, in the shape of labels."""
        return part_of(self._read(preds, self.tau), 0)

    def quantiles(self, preds: Tensor, *quantiles: float) -> tuple[Tensor, ...]:
        """Return quantiles of the label in the chosen world, each in the shape of labels."""
        found = self._read(preds, self.tau, quantiles)
        return tuple(part_of(found, 1 + number) for number in range(len(quantiles)))

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor]:
        """Return the ends of the central 68.27 % interval in the chosen world."""
        low, high = self.quantiles(preds, (1 - LEVEL) / 2, (1 + LEVEL) / 2)
        return low, high

    def decode(self, preds: Tensor) -> Tensor:
        """Return all of ``PARTS`` of logits (B, K, ...), as (B, 5, ...), without a gradient.

        Maps are to be enlarged afterwards: the mean of interpolated probabilities is the
        interpolated mean, and no map of K logits at an image's size is ever made.
        """
        quantiles = (0.5, (1 - LEVEL) / 2, (1 + LEVEL) / 2)
        return torch.cat([self._read(preds, self.tau, quantiles), self._read(preds, 0.0)], 1)

    def read_parts(self, decoded: Tensor) -> dict[str, Tensor]:
        """Return ``PARTS`` by name, each in the shape of labels; no mean is beyond the range."""
        found = {name: part_of(decoded, number) for number, name in enumerate(PARTS)}
        return {**found, "clamped": found["raw"]}

    def facts(self) -> dict[str, Any]:
        """Return the world, and what the interval is of."""
        about = "central 68.27 % interval of the distribution over bins"
        return {"tau": self.tau, "relative_to": self.relative_to, "interval": about}

    @torch.no_grad()
    def _read(self, preds: Tensor, tau: float, quantiles: Sequence[float] = ()) -> Tensor:
        """Return ``read_bins`` of logits (B, K, ...), as (B, 1 + Q, ...)."""
        ratio, seen = self.log_ratio()
        dtype, columns = compute_dtype(preds), _columns(preds)
        offsets = torch.where(seen, tau * ratio, -torch.inf).to(dtype)
        shape = columns.shape[0], 1 + len(quantiles), columns.shape[2]
        found = preds.new_empty(shape, dtype=dtype)
        with torch.autocast(preds.device.type, enabled=False):
            for logits, part in _chunks(columns, found):
                part.copy_(read_bins(logits.to(dtype), self.centers.to(dtype), offsets, quantiles))
        return found[0].t() if preds.ndim == 2 else found.view(len(preds), -1, *preds.shape[2:])


class _TwoHotEntropy(torch.autograd.Function):
    """Cross-entropy of logits (B, K, ...) and labels, some of them at a time, in either pass.

    What is kept for the backward pass is one number per label; the softmax is made again there.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, preds: Tensor, target: Tensor, mask: Tensor | None, centers: Tensor
    ) -> Tensor:
        columns = _columns(preds)
        labels = target.reshape(len(columns), -1)
        upper = torch.searchsorted(centers, labels, right=True).clamp(1, len(centers) - 1)
        start, stop = centers[upper - 1], centers[upper]
        share = ((labels - start) / (stop - start)).clamp(0, 1)
        logsums, values = torch.empty_like(labels), torch.empty_like(labels)
        for logits, k, w, logsum, value in _chunks(columns, upper, share, logsums, values):
            logits = logits.to(labels.dtype)
            logsum.copy_(torch.logsumexp(logits, 0))
            both = logits.gather(0, torch.stack([k - 1, k]))
            value.copy_(logsum - torch.lerp(both[0], both[1], w))
        ctx.save_for_backward(preds, upper, share, logsums, mask)
        return values.view(target.shape)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        preds, upper, share, logsums, mask = ctx.saved_tensors
        found = torch.empty_like(preds)
        columns, pulls, grads = _columns(preds), _columns(found), grad.reshape(upper.shape)
        mask = None if mask is None else mask.reshape(upper.shape)
        parts = _chunks(columns, pulls, upper, share, logsums, grads, mask)
        for logits, stored, k, w, logsum, outer, counts in parts:
            pull = (logits.to(grad.dtype) - logsum).exp_().mul_(outer)
            if counts is not None:
                pull = hide(pull, counts)  # NaN times 0
            pull.scatter_add_(0, torch.stack([k - 1, k]), torch.stack([w - 1, -w]) * outer)
            stored.copy_(pull)
        return found, None, None, None


def part_of(found: Tensor, number: int) -> Tensor:
    """Return one channel of (B, C, ...) in the shape of labels: (B, 1, ...), of (B, C) (B,)."""
    return found[:, number : number + 1] if found.ndim > 2 else found[:, number]


def _columns(preds: Tensor) -> Tensor:
    """Return logits (B, K, ...) as a view (images, K, labels)."""
    return preds.t()[None] if preds.ndim == 2 else preds.flatten(2)


def _chunks(columns: Tensor, *others: Tensor | None) -> Iterator[tuple[Any, ...]]:
    """Return the same labels of (images, K, labels) and others (images, ..., labels), as views."""
    images, bins, labels = columns.shape
    rows = max(1, (CHUNK_NUMBERS if columns.device.type == "cpu" else DEVICE_NUMBERS) // bins)
    for image, start in itertools.product(range(images), range(0, labels, rows)):
        part = slice(start, start + rows)
        yield tuple(one if one is None else one[image, ..., part] for one in (columns, *others))
