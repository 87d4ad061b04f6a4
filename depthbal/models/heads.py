"""What the numbers of a network's last layer mean: metres, their logarithm, or logits of bins."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from depthbal.errors import ConfigError

HeadKind = Literal["linear", "bounded", "log", "bins"]

LINEAR_FROM = 7.0  # e^7 = 1,097 label units: no exponential of a wild step is infinite


class Head(nn.Module):
    """The last step of a network, from its last layer's outputs x to predictions.

        linear   p = x
        bounded  p = lo + (hi - lo) sigmoid(x)
        log      p = e^x, beyond e^7 along its tangent, for labels of very different sizes
        bins     the K outputs are logits, for ``BinsLoss``

    Networks take its arguments as ``head={"kind": "log"}``, in configs ``head: {kind: log}``.

    Args:
        kind: One of the four.
        label_range: Ends (lo, hi) of ``"bounded"`` in label units; neither is ever reached. None:
            those of the data, which a task gives (``set_label_range``).
        bins: K, of ``"bins"``.

    Raises:
        ConfigError: An unknown kind, no proper ends or bins, or, on a call, no ends.

    Example:
        >>> Head("bounded", label_range=(0.0, 10.0))(torch.tensor([0.0, 2.0]))
        tensor([5.0000, 8.8080])
    """

    def __init__(
        self,
        kind: HeadKind = "linear",
        *,
        label_range: tuple[float, float] | None = None,
        bins: int = 64,
    ) -> None:
        super().__init__()
        if kind not in get_args(HeadKind):
            raise ConfigError(f"expected a head of kind {get_args(HeadKind)}, got {kind!r}")
        if label_range is not None and not label_range[0] < label_range[1]:
            raise ConfigError(f"expected label_range [lo, hi] of a head, got {label_range}")
        if kind == "bins" and bins < 2:
            raise ConfigError(f"a head of bins needs at least 2 of them, got {bins}")
        self.kind, self.label_range = kind, label_range
        self.channels = bins if kind == "bins" else 1

    def forward(self, outputs: Tensor) -> Tensor:
        """Return predictions (B, 1, ...), or logits (B, K, ...), of the last layer's outputs."""
        if self.kind in ("linear", "bins"):
            return outputs
        x = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if self.kind == "bounded":
            low, high = self._ends()
            return low + (high - low) * x.sigmoid()
        return x.clamp(max=LINEAR_FROM).exp() * (1 + (x - LINEAR_FROM).clamp(min=0))

    def set_label_range(self, label_range: tuple[float, float]) -> None:
        """Take the ends of the labels; those of a bounded head are these, or farther apart."""
        (low, high), own = label_range, self.label_range or label_range
        self.label_range = min(low, own[0]), max(high, own[1])

    def _ends(self) -> tuple[float, float]:
        if self.label_range is None:
            raise ConfigError("a bounded head needs label_range [lo, hi], or a task with data")
        return self.label_range

    def initialise(self, bias: Any, start: float | Tensor) -> None:
        """Let an untrained network predict about ``start``, of a head of bins logits (K,)."""
        wanted = torch.as_tensor(start)
        if self.kind == "log":
            wanted = wanted.clamp(min=1e-3).log()
        if self.kind == "bounded":
            low, high = self._ends()
            wanted = torch.logit((wanted - low) / (high - low), eps=1e-3)
        with torch.no_grad():
            bias.copy_(wanted)


def take_range(label_range: tuple[float, float], *modules: Any) -> None:
    """Tell networks, their heads and losses that want to know it between which ends labels lie."""
    for module in modules:
        for part in (module, getattr(module, "output_head", None)):
            take = getattr(part, "set_label_range", None)
            if take is not None:
                take(label_range)


def require_matching_head(model: nn.Module, criterion: nn.Module) -> None:
    """Raise a ConfigError where one of network and loss is of bins and the other is not.

    Networks without a `Head` are their author's.
    """
    head, wanted = getattr(model, "output_head", ...), getattr(criterion, "n_bins", None)
    if head is None and wanted:
        raise ConfigError(
            f"{type(criterion).__name__} wants logits of {wanted} bins, and {type(model).__name__} "
            "gives metres: take another loss, or SmpDepth with a head of bins"
        )
    if not isinstance(head, Head) or (wanted or 1) == head.channels:
        return
    name = type(criterion).__name__
    if wanted is None:
        raise ConfigError(
            f"the network's head gives logits of {head.channels} bins, which {name} would take for "
            "labels: use --model.criterion BinsLoss, or another head"
        )
    raise ConfigError(
        f"{name} wants logits of {wanted} bins, the network's head gives {head.channels} (of kind "
        f"{head.kind}): --model.model.head '{{kind: bins, bins: {wanted}}}'"
    )
