"""How the evidence of flat predictions is computed: by table, compiled, or as the eager sum."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from depthbal.losses.kernel import tabulated
from depthbal.losses.kernel.chunks import CACHE_LABELS, chunks
from depthbal.losses.kernel.compiled import CompiledSum
from depthbal.losses.kernel.exact import EVERYTHING, Components, Evidence, Wanted, exact_evidence
from depthbal.losses.kernel.masking import hide

SigmaOf = Callable[[Tensor], Tensor]
Route = Literal["table", "compiled", "sum"]

# Below this number of pairs (prediction, component) the exact sum is faster than anything prepared.
TABULATE_PAIRS = 2**20
# Building a table reads its range back. A GPU must not wait for that in every step, except where
# the sum itself takes longer than the wait.
DEVICE_TABLE_PAIRS = 2**28
# Where torch.compile keeps the whole sum of a prediction in registers.
COMPILING_DEVICES = ("cuda", "xpu")

_compiled_sum = CompiledSum()


class Request(NamedTuple):
    """What is asked of the evidence besides predictions, noise scale and mixture."""

    wanted: Wanted = EVERYTHING
    sigma_of: SigmaOf | None = None
    tolerance: float = 1e-5
    budget_mb: float = 256


def evaluate(preds: Tensor, sigma: Tensor, mixture: Components, request: Request) -> Evidence:
    """Return the evidence of flat predictions with the derivatives that are wanted.

    Args:
        preds: (n,) for scalar labels, (n, D) for vectors; float32 or float64.
        sigma: Shape () for one noise scale, (n,) for one per prediction; of the predictions' type.
        mixture: In float64.
        request: Derivatives, tolerance of the table, memory budget.

    Raises:
        ValueError: A sigma on the CPU that is not positive.
    """
    return prepare(preds, sigma, mixture, request)(preds)


def prepare(
    preds: Tensor,
    sigma: Tensor,
    mixture: Components,
    request: Request,
    mask: Tensor | None = None,
) -> Callable[[Tensor], Evidence]:
    """Return the function that gives the evidence of these predictions.

    Where there is one noise scale it also takes any part of them. It wants them in the type of
    ``sigma``; see ``evaluate``.

    Args:
        preds: See ``evaluate``; of any floating type.
        sigma: See ``evaluate``.
        mixture: See ``evaluate``.
        request: See ``evaluate``.
        mask: (n,), True where scalar predictions count; the others are returned anyhow. None
            counts all.
    """
    if sigma.device.type == "cpu" and not bool((sigma > 0).all()):  # elsewhere it would stall
        smallest = sigma.min() if sigma.numel() else sigma
        raise ValueError(f"expected a positive noise_sigma in label units, got {smallest}")
    wanted, budget_mb = request.wanted, request.budget_mb
    route = choose_route(preds, sigma, mixture, request)
    table = _table(preds, sigma, mixture, request, mask) if route == "table" else None
    rounded = mixture.to(sigma)

    def evidence(part: Tensor) -> Evidence:
        if table is not None:
            curves = iter(tabulated.interpolate(table, part, budget_mb))
            return Evidence(
                next(curves),
                next(curves) if wanted.by_preds else None,
                next(curves) if wanted.by_sigma else None,
            )
        result = _compiled_sum(part, sigma, rounded, wanted) if route == "compiled" else None
        return result or exact_evidence(part, sigma, rounded, wanted, budget_mb)

    return evidence


def choose_route(preds: Tensor, sigma: Tensor, mixture: Components, request: Request) -> Route:
    """Return how the evidence is best computed here.

    Example:
        >>> mixture = Components(*torch.zeros(3, 16))
        >>> choose_route(torch.zeros(10**6), torch.tensor(1.0), mixture, Request())
        'table'
    """
    pairs = preds.shape[0] * mixture.log_weights.numel()
    if preds.ndim > 1 or preds.dtype == torch.float64 or pairs < TABULATE_PAIRS:
        return "sum"
    on_cpu = preds.device.type == "cpu"
    smooth = sigma.ndim == 0 or request.sigma_of is not None
    if smooth and (on_cpu or pairs >= DEVICE_TABLE_PAIRS):
        return "table"
    return "compiled" if preds.device.type in COMPILING_DEVICES else "sum"


def _table(
    preds: Tensor, sigma: Tensor, mixture: Components, request: Request, mask: Tensor | None
) -> tabulated.Table | None:
    """Return a table of the evidence over the predictions, or None where none is exact enough."""
    wanted, sigma_of = request.wanted, request.sigma_of

    def exact(nodes: Tensor) -> Tensor:
        noise = sigma.double() if sigma_of is None else sigma_of(nodes).double()
        curves = exact_evidence(nodes, noise, mixture, wanted, request.budget_mb)
        return torch.stack([curve for curve in curves if curve is not None])

    smallest, largest = (end.double() for end in sigma.aminmax())
    width = (mixture.variances.min() + smallest**2).sqrt()
    ends = _extent(preds, mask, sigma, mixture)
    low, high, smoothness = torch.cat([ends, width[None]]).tolist()
    # Times the largest sigma, the derivatives are pure numbers like the logarithm itself.
    sizes = torch.stack([torch.ones_like(largest)] + [largest] * sum(wanted))
    errors = request.tolerance / sizes[:, None]
    return tabulated.build(exact, low, high, smoothness, preds.numel() // 4, errors)


def _extent(preds: Tensor, mask: Tensor | None, sigma: Tensor, mixture: Components) -> Tensor:
    """Return ends of a range that holds the predictions that count, (2,) in float64."""
    if mask is None:
        return torch.stack(preds.aminmax()).double()
    inside = (mixture.log_weights.exp() @ mixture.means).to(sigma)
    ends = [
        torch.stack(hide(part.to(sigma.dtype) - inside, counts).aminmax())
        for part, counts in chunks(CACHE_LABELS, preds, mask)
    ]
    low, high = (inside + torch.stack(ends)).double().unbind(1)
    return torch.stack([low.min(), high.max()])
