"""The evidence of Balanced MSE: the one kernel that all its variants share.

    log E(p) = log sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I)

is the logarithm of the integral of N(y; p, sigma^2 I) p_train(y) over y for a training distribution
that is a mixture (Ren et al., CVPR 2022, Theorem 1). Its derivatives are soft-max moments, so the
forward pass computes them and the backward pass is a multiplication: memory is O(predictions),
whatever the number of components.
"""

from typing import Any

import torch
from torch import Tensor

from depthbal.losses.kernel.evaluate import Request, SigmaOf, evaluate
from depthbal.losses.kernel.exact import Components, Wanted
from depthbal.losses.kernel.first_order import first_order
from depthbal.priors import GaussianMixture


def log_evidence(
    preds: Tensor,
    prior: GaussianMixture,
    noise_sigma: Tensor | float,
    *,
    sigma_of: SigmaOf | None = None,
    tolerance: float = 1e-5,
    memory_budget_mb: float = 256,
) -> Tensor:
    """Return log of sum_k w_k N(p; mu_k, Sigma_k + sigma^2 I), one value per label.

    The prior's dimension says what a label is: for a scalar mixture every entry of ``preds``, for
    a mixture of dimension D the vectors along the last axis.

    float64 predictions always get the exact sum. In float32, where scalar predictions are many, the
    sum is tabulated over their range and interpolated, if the table agrees with the exact sum
    within ``tolerance`` half-way between its nodes; otherwise the exact sum serves. On a GPU, which
    must not wait for a table's range, the exact sum is compiled, or summed in blocks where nothing
    compiles. Half precision is computed in float32. Gradients flow to ``preds`` and
    ``noise_sigma``, never to the prior, and ``noise_sigma`` is held fixed inside the integral.

    Args:
        preds: Predicted labels in label units, any shape for scalars, (..., D) for vectors.
        prior: p_train(y) as a mixture; point masses (variance 0) are allowed.
        noise_sigma: Noise scale sigma > 0 in label units: one number, or one per label.
        sigma_of: Where sigma is a function of the prediction, that function; with it many
            predictions can be tabulated although sigma differs between them.
        tolerance: Largest error of log E, sigma dlogE/dp and sigma dlogE/dsigma in float32.
        memory_budget_mb: Ceiling on the temporaries in MiB; results do not depend on it.

    Returns:
        Log evidence per label in float32 or float64: the shape of ``preds``, without the last axis
        for vectors.

    Raises:
        ValueError: ``noise_sigma`` of another shape or not positive, a budget that is not positive,
            or vectors of another dimension than the prior's.

    Source: Ren et al., Balanced MSE for Imbalanced Visual Regression, CVPR 2022, Theorem 1.

    Example:
        >>> prior = GaussianMixture([1.0], [2.0], [3.0])
        >>> log_evidence(torch.zeros(2), prior, 1.0)  # log N(0; 2, 4)
        tensor([-2.1121, -2.1121])
        >>> plane = GaussianMixture([1.0], [[0.0, 0.0]], [[3.0, 8.0]])
        >>> log_evidence(torch.zeros(5, 2), plane, 1.0).shape
        torch.Size([5])
    """
    if not memory_budget_mb > 0:
        raise ValueError(f"expected a positive memory_budget_mb, got {memory_budget_mb}")
    preds = preds.to(compute_dtype(preds))
    labels = _labels_shape(preds, prior)
    sigma = flat_sigma(noise_sigma, preds, labels)
    flat = preds.reshape(-1, *preds.shape[len(labels) :])
    mixture = components(prior, preds.device)
    wanted = wanted_derivatives(flat, sigma)
    request = Request(wanted, sigma_of, tolerance, memory_budget_mb)
    value: Tensor
    if torch.compiler.is_compiling():
        value = _opaque(flat, sigma, *mixture, *wanted, tolerance, memory_budget_mb)[0]
    else:
        value = _LogEvidence.apply(flat, sigma, mixture, request)
    return value.view(labels)


def compute_dtype(preds: Tensor) -> torch.dtype:
    """Return float64 for float64 predictions and float32 for everything narrower."""
    return torch.float64 if preds.dtype == torch.float64 else torch.float32


def wanted_derivatives(preds: Tensor, sigma: Tensor) -> Wanted:
    """Return which derivatives are being recorded."""
    recording = torch.is_grad_enabled()
    return Wanted(recording and preds.requires_grad, recording and sigma.requires_grad)


def components(prior: GaussianMixture, device: torch.device) -> Components:
    """Return the mixture for the exact sums, in float64."""
    variances, axes = (prior.variances, None) if prior.variances.ndim < 3 else prior.spectrum
    on_device = torch.empty(0, dtype=torch.float64, device=device)
    return Components(prior.weights.log(), prior.means, variances, axes).to(on_device)


def _labels_shape(preds: Tensor, prior: GaussianMixture) -> torch.Size:
    """Return the shape of ``preds`` without the event axis."""
    if prior.event_dim == 0:
        return preds.shape
    if preds.ndim == 0 or preds.shape[-1] != prior.means.shape[1]:
        raise ValueError(
            f"expected vectors of the prior's dimension {prior.means.shape[1]} on the last axis, "
            f"got preds {tuple(preds.shape)}"
        )
    return preds.shape[:-1]


def flat_sigma(noise_sigma: Tensor | float, preds: Tensor, labels: torch.Size) -> Tensor:
    """Return sigma in the type of ``preds``, of shape () or flat with one per label."""
    if not isinstance(noise_sigma, Tensor):
        # Filled in on the device: copying one number there would stall it.
        sigma = torch.full((), noise_sigma, dtype=preds.dtype, device=preds.device)
    else:
        sigma = noise_sigma.to(preds.device, preds.dtype)
    if sigma.numel() == 1:
        return sigma.reshape(())
    if sigma.shape != labels:
        raise ValueError(
            f"expected noise_sigma with one element or of shape {tuple(labels)}, one per label, "
            f"got {tuple(sigma.shape)}"
        )
    return sigma.flatten()


class _LogEvidence(torch.autograd.Function):
    """Forward stores the derivatives that will be needed; backward multiplies."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, preds: Tensor, sigma: Tensor, mixture: Components, request: Request
    ) -> Tensor:
        evidence = evaluate(preds, sigma, mixture, request)
        ctx.save_for_backward(evidence.by_preds, evidence.by_sigma)
        ctx.one_sigma = sigma.ndim == 0
        return evidence.value

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        by_preds, by_sigma = ctx.saved_tensors
        return *chain_rule(grad, by_preds, by_sigma, ctx.one_sigma), None, None


def chain_rule(
    grad: Tensor, by_preds: Tensor | None, by_sigma: Tensor | None, one_sigma: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients of predictions and sigma from that of the evidence."""
    if by_preds is not None:
        by_preds = by_preds * (grad if by_preds.ndim == 1 else grad[:, None])
    if by_sigma is not None:
        by_sigma = grad * by_sigma
        if one_sigma:
            by_sigma = by_sigma.sum(dtype=torch.float64).to(grad.dtype)
    return by_preds, by_sigma


# For torch.compile the evidence is one operation without an inside: a compiled loss gives the same
# numbers as an eager one, and no graph break.
@torch.library.custom_op("depthbal::log_evidence", mutates_args=())
def _opaque(
    preds: Tensor,
    sigma: Tensor,
    log_weights: Tensor,
    means: Tensor,
    variances: Tensor,
    axes: Tensor | None,
    want_preds: bool,
    want_sigma: bool,
    tolerance: float,
    memory_budget_mb: float,
) -> list[Tensor]:
    request = Request(Wanted(want_preds, want_sigma), None, tolerance, memory_budget_mb)
    evidence = evaluate(preds, sigma, Components(log_weights, means, variances, axes), request)
    return [preds.new_empty(0) if part is None else part for part in evidence]


@_opaque.register_fake
def _(preds: Tensor, sigma: Tensor, *args: Any) -> list[Tensor]:
    want_preds, want_sigma = args[4:6]
    value = preds.new_empty(preds.shape[0])
    return [
        value,
        torch.empty_like(preds if want_preds else value[:0]),
        torch.empty_like(value if want_sigma else value[:0]),
    ]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    want_preds, want_sigma = inputs[6:8]
    ctx.save_for_backward(output[1] if want_preds else None, output[2] if want_sigma else None)
    ctx.one_sigma = inputs[1].ndim == 0


def _opaque_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor | None, ...]:
    by_preds, by_sigma = ctx.saved_tensors
    return *chain_rule(grads[0], by_preds, by_sigma, ctx.one_sigma), *(None,) * 8


_opaque.register_autograd(_opaque_backward, setup_context=_keep)
