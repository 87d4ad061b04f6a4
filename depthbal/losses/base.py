"""What every loss of the package has in common: checks, precision, masks, reduction."""

import math
from abc import ABC, abstractmethod
from typing import Any, get_args

import torch
from torch import Tensor, nn

from depthbal.losses.buffers import RequiredBuffers
from depthbal.losses.reduction import Mask, Reduction, all_finite, compute_dtype, hide, reduce
from depthbal.priors import GaussianMixture, Histogram, World
from depthbal.priors.histogram import require_tau

# A device's counter of bad values is read this often, because reading it stalls the device.
DEVICE_CHECK_INTERVAL = 50
# Labels beyond a range at whose end there are hardly any stand for at most so many of its lengths.
MAX_LENGTHS = 10.0


class NonFiniteError(ValueError):
    """Predictions or targets that count are NaN or infinite."""


class RegressionLoss(nn.Module, ABC):
    """Base of the losses: ``loss(preds, target, mask=None, beyond=None)`` gives a scalar.

    Predictions and targets have one shape, are floating point, and are compared in float32 or wider
    whatever autocast says. Entries where ``mask`` is False may hold anything, NaN included.

    ``beyond`` is True for labels that are only known to lie beyond the end hi of ``label_range``,
    such as the depth of sky (censored labels). They count as well, whatever target and mask say.
    Losses that do not balance are one-sided there: the label is hi where the prediction is nearer,
    and no error where it is not.

    ``init_args`` holds the JSON-able arguments that make the same loss again; a prior is part of
    the state dict instead.

    Args:
        reduction: ``"mean"`` over valid labels, ``"sum"`` or ``"none"``.
        label_range: Ends (lo, hi) of the label range in label units, for the read-out.
        event_dim: 0 where every entry is a label, 1 where the vectors along the last axis are.
    """

    init_args: dict[str, Any]
    balances: bool = False
    """Whether networks trained with it are not to be balanced afterwards: they are already."""
    readouts: tuple[str, ...] = ("raw", "clamped", "mean")
    """How its networks can be read."""
    n_parts: int = 1
    """How many numbers ``decode`` gives per label."""

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        label_range: tuple[float, float] | None = None,
        event_dim: int = 0,
    ) -> None:
        super().__init__()
        if event_dim not in (0, 1):
            raise ValueError(f"expected event_dim 0 (scalars) or 1 (vectors), got {event_dim!r}")
        require_one_of("reduction", reduction, ("mean", "sum", "none"))
        self.reduction: Reduction = reduction
        self.label_range = None if label_range is None else checked_range(label_range)
        self.event_dim = event_dim
        self.init_args = {"reduction": reduction, "label_range": label_range}
        if event_dim:
            self.init_args["event_dim"] = event_dim
        self._calls = 0
        # No buffer: DistributedDataParallel would overwrite it with the first rank's.
        self._bad_values: Tensor | None = None

    @abstractmethod
    def elementwise(self, preds: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        """Return the loss of every label; inputs are checked, finite and of one wide dtype."""

    def forward(
        self, preds: Tensor, target: Tensor, mask: Mask = None, beyond: Mask = None
    ) -> Tensor:
        """Return the reduced loss of predictions and targets of one shape, label units.

        The mask is boolean, of that shape, for vectors without the last axis; True counts, and None
        counts everything. So is ``beyond``, for scalar labels.

        Raises:
            ValueError: Shapes that differ, integer labels, values that count and are NaN, infinite
                or so large that the loss is (on other devices than the CPU reported within 50
                calls, so that no step stalls).
        """
        require_matching(preds, target, mask, self.event_dim)
        if beyond is not None:
            end = self.end_of_range(beyond, target)
            nearest = preds.detach().to(compute_dtype(preds)).clamp(min=end)
            target = torch.where(beyond, nearest, target)
            mask = None if mask is None else mask | beyond
        with torch.autocast(preds.device.type, enabled=False):
            value = self.reduced(preds, target.detach(), mask, beyond)
        on_cpu = value.device.type == "cpu" and not torch.compiler.is_compiling()
        if on_cpu and not bool(value.isfinite().all()):
            raise NonFiniteError(
                "predictions or targets that count are finite, but so large that the loss is not: "
                "check the learning rate and the labels, or mask them out"
            )
        return value

    def end_of_range(self, beyond: Tensor, target: Tensor) -> float:
        """Return the label beyond which labels are known to lie; a ValueError where none is."""
        if beyond.shape != target.shape or beyond.dtype != torch.bool:
            raise ValueError(
                f"expected a boolean beyond {tuple(target.shape)}, True for scalar labels beyond "
                f"the label range, got {beyond.dtype} {tuple(beyond.shape)}"
            )
        if self.label_range is None or self.event_dim:
            raise ValueError(
                "labels beyond the end of the range need a loss of scalar labels with a "
                "label_range: set label_range=(lo, hi)"
            )
        return self.label_range[1]

    def reduced(
        self, preds: Tensor, target: Tensor, mask: Tensor | None, beyond: Tensor | None = None
    ) -> Tensor:
        """Return the reduced loss of tensors that match, of any floating type, not yet finite.

        Where a label is ``beyond`` the mask counts it and its target is one-sided.
        """
        preds = preds.to(compute_dtype(preds))
        target = target.to(preds.dtype)
        entries = mask[..., None] if mask is not None and self.event_dim else mask
        self.require_finite(preds, target, entries)
        preds, target = hide(preds, entries), hide(target, entries)
        values = self.elementwise(preds, target, mask)
        if beyond is not None:
            values = self.censored(values, preds, mask, beyond)
        return reduce(values, mask, self.reduction)

    def censored(
        self, values: Tensor, preds: Tensor, mask: Tensor | None, beyond: Tensor
    ) -> Tensor:
        """Return what labels beyond the range make of one-sided losses: here nothing else."""
        return values

    def per_label(self, entries: Tensor) -> Tensor:
        """Sum over the coordinates of vector labels; scalars stay as they are."""
        return entries.sum(-1) if self.event_dim else entries

    def decode(self, preds: Tensor) -> Tensor:
        """Return what is enlarged and read out of the raw network output: here itself."""
        return preds

    def read_parts(self, decoded: Tensor) -> dict[str, Tensor]:
        """Return read-outs and "low", "high" that ``decode`` gave, if the output is no label."""
        return {}

    def readout(self, preds: Tensor) -> Tensor:
        """Return the prediction that the raw network output stands for: here the output itself."""
        return preds

    def interval(self, preds: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return the ends of the 68.27 % interval of the label; None without a noise scale."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return what a result says of the loss: its one noise scale, if it has one."""
        sigma = self.noise_sigma
        return {} if sigma is None or sigma.numel() != 1 else {"noise_sigma": float(sigma)}

    @property
    def needs_prior(self) -> bool:
        """Whether ``set_prior`` must still be called."""
        return any(one.is_unset for one in self.modules() if isinstance(one, RequiredBuffers))

    def set_prior(self, prior: Histogram | GaussianMixture) -> None:
        """Take the training labels' distribution; losses without a prior ignore it."""

    def set_beyond(self, prior: Histogram) -> None:
        """Take how common labels beyond the label range are; losses without a prior ignore it."""

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Take the ends (lo, hi) of the label range, which no argument gave, from the data."""
        self.label_range = self.init_args["label_range"] = checked_range(label_range)

    def noise_parameters(self) -> list[nn.Parameter]:
        """Return what is learned of the noise scale; it wants no weight decay and no schedule."""
        noise: Any = getattr(self, "noise", None)
        if not hasattr(noise, "depends_on_preds"):  # no NoiseModule
            return []
        return [parameter for parameter in noise.parameters() if parameter.requires_grad]

    @property
    def noise_sigma(self) -> Tensor | None:
        """The noise scale in label units, detached, (); None without one that all labels share."""
        noise: Any = getattr(self, "noise", None)
        if getattr(noise, "depends_on_preds", True):
            return None
        return noise(torch.empty(0)).detach()  # type: ignore[no-any-return]

    def require_finite(self, preds: Tensor, target: Tensor, entries: Tensor | None) -> None:
        """Raise an error where values that count are NaN or infinite; see ``report_bad``."""
        preds = preds.detach()
        if preds.device.type == "cpu" and not torch.compiler.is_compiling():
            counts = None if entries is None else entries.expand_as(preds).reshape(-1)
            if all_finite(preds.reshape(-1), target.reshape(-1), counts):
                return
        bad = torch.stack([~torch.isfinite(values) for values in (preds, target)])
        self.report_bad((bad if entries is None else bad & entries).sum())

    def report_bad(self, bad: Tensor) -> None:
        """Raise a NonFiniteError for bad values that count: on a CPU at once, else in 50 calls."""
        if bad.device.type != "cpu":
            bad = bad if self._bad_values is None else self._bad_values + bad
            self._calls += 1
            due = self._calls % DEVICE_CHECK_INTERVAL == 0
            self._bad_values = None if due else bad
            if not due:
                return
        if int(bad):
            raise NonFiniteError(
                f"{int(bad)} NaN or infinite predictions or targets count under the mask: check "
                "the learning rate and the labels, or mask them out"
            )


def require_positive(sigma: Tensor) -> None:
    """Raise a ValueError for a sigma on the CPU that is not positive; elsewhere it would stall."""
    if sigma.device.type == "cpu" and not bool(((sigma > 0) & (sigma < math.inf)).all()):
        raise ValueError(f"expected a positive noise_sigma in label units, got {sigma.min()}")


def scale_of(
    noise_sigma: Tensor | float, labels: torch.Size, like: Tensor, source: str = "noise_sigma"
) -> Tensor:
    """Return a noise scale in the type of ``like``: of shape (), or one per label."""
    if isinstance(noise_sigma, Tensor):
        sigma = noise_sigma.to(like.device, like.dtype)
    else:  # filled in on the device: copying one number there would stall it
        sigma = torch.full((), noise_sigma, dtype=like.dtype, device=like.device)
    if sigma.numel() == 1:
        return sigma.reshape(())
    if sigma.shape != labels:
        raise ValueError(
            f"expected {source} of one element or of shape {tuple(labels)}, one per label, got "
            f"{tuple(sigma.shape)}"
        )
    return sigma


def require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Raise a ValueError unless the value is known."""
    if value not in known:
        raise ValueError(f"expected {name} {', '.join(known[:-1])} or {known[-1]}, got {value!r}")


def require_world(relative_to: str, tau: float) -> None:
    """Raise a ValueError unless there may be such a world, and such a share of it."""
    require_tau(tau)
    if not str(relative_to).endswith(".json"):  # which Histogram.save wrote
        require_one_of("relative_to", relative_to, (*get_args(World), "a .json file"))


def checked_range(label_range: tuple[float, float]) -> tuple[float, float]:
    """Return the range; a ValueError unless it is finite and increases."""
    if len(label_range) != 2 or not -math.inf < label_range[0] < label_range[1] < math.inf:
        raise ValueError(
            f"expected label_range (lo, hi), both finite and lo < hi, got {label_range}"
        )
    return label_range[0], label_range[1]


def require_matching(preds: Tensor, target: Tensor, mask: Tensor | None, event_dim: int) -> None:
    """Raise a ValueError unless shapes agree exactly and the types can be compared."""
    if preds.shape != target.shape:
        raise ValueError(
            f"preds {tuple(preds.shape)} and target {tuple(target.shape)} differ; "
            "nothing is broadcast: reshape or resize one"
        )
    for name, tensor in (("preds", preds), ("target", target)):
        if not tensor.is_floating_point():
            raise ValueError(f"expected {name} in floating point, got {tensor.dtype}: use .float()")
    if preds.ndim < event_dim:
        raise ValueError("expected vectors along the last axis (event_dim=1), got single numbers")
    labels = preds.shape[: preds.ndim - event_dim]
    if mask is not None and (mask.shape != labels or mask.dtype != torch.bool):
        raise ValueError(
            f"expected a boolean mask {tuple(labels)}, one entry per label and True counts, got "
            f"{mask.dtype} {tuple(mask.shape)}"
        )
