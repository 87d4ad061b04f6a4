"""What tests of several losses share: long tails, gradients, minima, memory."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from depthbal.priors import GaussianMixture, Histogram

RANGE = (0.7, 10.0)
EDGES = np.linspace(*RANGE, 94)
LONG_TAIL = Histogram(EDGES, 1e6 * np.exp(-(EDGES[:-1] + EDGES[1:]) / 3))
both_priors = pytest.mark.parametrize("prior", [LONG_TAIL, GaussianMixture.fit(LONG_TAIL, 4)])


def drawn(*shape: int, dtype=torch.float64, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return predictions, their long-tailed labels from 0.7 to 10, and a mask."""
    generator = torch.Generator().manual_seed(seed)
    target = 0.7 + 9.3 * torch.rand(shape, generator=generator, dtype=torch.float64) ** 3
    preds = target + torch.randn(shape, generator=generator, dtype=torch.float64)
    return preds.to(dtype), target.to(dtype), torch.rand(shape, generator=generator) < 0.6


def gradcheck(loss: nn.Module, preds: Tensor, *others) -> bool:
    """Compare gradients by the predictions and all parameters with differences of the value."""
    names = [name for name, _ in loss.named_parameters()]

    def value(preds, *parameters):
        replaced = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(loss, replaced, (preds, *others))

    leaves = [leaf.detach().clone().requires_grad_() for leaf in (preds, *loss.parameters())]
    return torch.autograd.gradcheck(value, leaves)


def minimise(leaf: Tensor, value) -> None:
    """Move a leaf to the minimum of a function without arguments."""
    solver = torch.optim.LBFGS(
        [leaf],
        max_iter=500,
        tolerance_grad=1e-11,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def closure():
        solver.zero_grad()
        found = value()
        found.backward()
        return found

    solver.step(closure)


def kept_numbers(function) -> list[int]:
    """Return the sizes of what a function keeps for the backward pass."""
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.untyped_storage().nbytes() // tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return kept


def record_calls(monkeypatch: pytest.MonkeyPatch, module, *names: str) -> list:
    """Return a list that collects what functions of a module return from now on."""
    results: list = []

    def recorded(function, *arguments):
        results.append(function(*arguments))
        return results[-1]

    for name in names:
        monkeypatch.setattr(module, name, partial(recorded, getattr(module, name)))
    return results
