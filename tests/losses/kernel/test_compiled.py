"""torch.compile: the losses inside it, and the compiled sum."""

import logging
import shutil

import pytest
import torch

from depthbal.losses import BMCLoss, BNILoss, GAILoss, log_evidence
from depthbal.losses.kernel import evidence
from depthbal.losses.kernel.compiled import CompiledSum
from depthbal.losses.kernel.exact import Components, Wanted, exact_evidence
from depthbal.priors import GaussianMixture, Histogram

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")),
    reason="torch.compile needs a C++ compiler on a CPU",
)
PRIOR = GaussianMixture([0.5, 0.3, 0.15, 0.05], [1.5, 2.5, 5.0, 9.0], [0.3, 0.2, 1.0, 0.0])


def mixture(components: int) -> Components:
    generator = torch.Generator().manual_seed(components)
    weights, means, variances = torch.rand(3, components, generator=generator)
    return Components(weights.log(), 10 * means, variances)


@pytest.fixture(autouse=True)
def _no_kernels_of_other_tests():
    torch._dynamo.reset()


def value_and_gradients(function, loss, labels: int):
    generator = torch.Generator().manual_seed(labels)
    preds = (10 * torch.rand(labels, generator=generator)).requires_grad_()
    target = 10 * torch.rand(labels, generator=generator)
    mask = torch.rand(labels, generator=generator) > 0.3
    value = function(preds * 1.1, target, mask)
    return value.detach(), *torch.autograd.grad(value, (preds, *loss.parameters()))


BINS = Histogram([0.0, 2.0, 4.0, 6.0, 10.0], [50, 30, 15, 5])
LEARNED = GAILoss(PRIOR, noise="learned")
FAMILIES = [BNILoss(BINS, family=kind, noise="learned") for kind in ("laplace", "huber", "student")]


# Tracing decides whether a loss compiles; only one of them pays for the C++ compiler.
@pytest.mark.parametrize(
    ("loss", "labels", "backend"),
    [
        (LEARNED, 333, "aot_eager"),
        (LEARNED, 300_001, "aot_eager"),  # by table
        (GAILoss(PRIOR, noise="depth"), 333, "aot_eager"),
        (BMCLoss(noise="learned"), 333, "aot_eager"),
        *((loss, 333, "aot_eager") for loss in FAMILIES),
        pytest.param(LEARNED, 333, "inductor", marks=needs_compiler),
    ],
)
def test_a_compiled_loss_equals_the_eager_one(loss, labels, backend):
    compiled = torch.compile(loss, backend=backend)
    got, expected = (value_and_gradients(f, loss, labels) for f in (compiled, loss))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


@needs_compiler
def test_the_compiled_sum_equals_the_eager_one_with_one_kernel_for_any_number_of_labels():
    compiled = CompiledSum()
    counters = torch._dynamo.utils.counters
    for components, labels in ((3, 1001), (3, 57), (16, 200), (4, 3000)):
        preds = torch.linspace(-200, 200, labels)
        before = counters["stats"]["unique_graphs"]
        got = compiled(preds, torch.tensor(0.7), mixture(components), Wanted())
        if (components, labels) != (3, 1001):
            assert counters["stats"]["unique_graphs"] == before
        expected = exact_evidence(preds, torch.tensor(0.7), mixture(components))
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@needs_compiler
def test_the_compiled_route_of_the_evidence_equals_the_sum(monkeypatch):
    preds = torch.linspace(0, 10, 1001).requires_grad_()
    sigma = torch.linspace(0.1, 2, 1001).requires_grad_()
    expected = torch.autograd.grad(log_evidence(preds, PRIOR, sigma).sum(), (preds, sigma))
    monkeypatch.setattr(evidence, "choose_route", lambda *_: "compiled")
    got = torch.autograd.grad(log_evidence(preds, PRIOR, sigma).sum(), (preds, sigma))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_where_nothing_compiles_the_sum_serves_and_one_message_says_so(monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(evidence, "choose_route", lambda *_: "compiled")
    monkeypatch.setattr(evidence, "_compiled_sum", CompiledSum())
    preds = torch.linspace(0, 10, 1001)
    with caplog.at_level(logging.WARNING):
        got = [log_evidence(preds, PRIOR, 1.0) for _ in range(3)]
    monkeypatch.undo()
    for value in got:
        torch.testing.assert_close(value, log_evidence(preds, PRIOR, 1.0))
    assert [record.message.count("no compiler here") for record in caplog.records] == [1]


def test_where_compilation_is_switched_off_no_matrix_is_made(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)  # TORCH_COMPILE_DISABLE=1
    compiled = CompiledSum()
    assert compiled(torch.zeros(3), torch.tensor(1.0), mixture(4), Wanted()) is None
    assert compiled.failed
