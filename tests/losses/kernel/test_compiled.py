"""torch.compile: the losses inside it, and the compiled sum."""

import logging
import shutil

import pytest
import torch

from depthbal.losses import BMCLoss, GAILoss, log_evidence
from depthbal.losses.kernel import evidence
from depthbal.losses.kernel.compiled import CompiledSum
from depthbal.losses.kernel.exact import Components, Wanted, exact_evidence
from depthbal.priors import GaussianMixture

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("c++", "g++", "clang++")),
    reason="torch.compile needs a C++ compiler on a CPU",
)
PRIOR = GaussianMixture([0.5, 0.3, 0.15, 0.05], [1.5, 2.5, 5.0, 9.0], [0.3, 0.2, 1.0, 0.0])


def mixture(components: int) -> Components:
    generator = torch.Generator().manual_seed(components)
    weights, means, variances = torch.rand(3, components, generator=generator)
    return Components(weights.log(), 10 * means, variances)


def value_and_gradients(function, scale: torch.Tensor, labels: int, **kwargs):
    generator = torch.Generator().manual_seed(labels)
    preds = (10 * torch.rand(labels, generator=generator)).requires_grad_()
    target = 10 * torch.rand(labels, generator=generator)
    mask = torch.rand(labels, generator=generator) > 0.3
    value = function(scale * preds, target, mask)
    return value.detach(), *torch.autograd.grad(value, (preds, scale))


@pytest.fixture(autouse=True)
def _no_kernels_of_other_tests():
    torch._dynamo.reset()


def assert_equal_compiled(loss, labels: int, backend: str) -> None:
    compiled = torch.compile(loss, backend=backend)
    scale = torch.tensor(1.1, requires_grad=True)
    got = value_and_gradients(compiled, scale, labels)
    torch.testing.assert_close(got, value_and_gradients(loss, scale, labels), rtol=1e-5, atol=1e-6)


# Tracing decides whether a loss compiles; only one of them pays for the C++ compiler.
@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (GAILoss(PRIOR, noise="learned"), 333),
        (GAILoss(PRIOR, noise="learned"), 300_001),  # by table
        (GAILoss(PRIOR, noise="depth"), 333),
        (BMCLoss(), 333),
    ],
)
def test_a_traced_loss_equals_the_eager_one(loss, labels):
    assert_equal_compiled(loss, labels, "aot_eager")


@needs_compiler
def test_a_compiled_loss_equals_the_eager_one():
    assert_equal_compiled(GAILoss(PRIOR, noise="learned"), 333, "inductor")


def test_a_traced_training_step_with_a_learned_noise_equals_the_eager_one():
    loss = GAILoss(PRIOR, noise="learned")
    generator = torch.Generator().manual_seed(0)
    inputs, target = (torch.rand(64, n, generator=generator) for n in (5, 1))
    weight = torch.randn(5, 1, generator=generator)

    def step(weight: torch.Tensor) -> torch.Tensor:
        return loss((inputs @ weight).exp(), 10 * target)

    results = []
    for function in (step, torch.compile(step, backend="aot_eager")):
        leaf = weight.clone().requires_grad_()
        value = function(leaf)
        results.append((value.detach(), *torch.autograd.grad(value, (leaf, loss.noise.log_sigma))))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("per_label", [False, True])
def test_a_compiled_function_around_the_evidence_equals_the_eager_one(per_label):
    preds = torch.linspace(0, 10, 35).view(5, 7).requires_grad_()
    sigma = torch.full((5, 7) if per_label else (), 0.8, requires_grad=True)

    def mean(preds: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return log_evidence(preds * 2, PRIOR, sigma).square().mean()

    whole = torch.compile(mean, backend="aot_eager")
    got = torch.autograd.grad(whole(preds, sigma), (preds, sigma))
    expected = torch.autograd.grad(mean(preds, sigma), (preds, sigma))
    torch.testing.assert_close(got, expected)


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


@pytest.mark.parametrize(
    ("labels", "components", "per_label", "expected"),
    [
        (1000, 16, False, "sum"),
        (2**18, 16, False, "compiled"),
        (2**18, 16, True, "compiled"),
        (2**22, 64, False, "table"),
        (2**22, 64, True, "compiled"),
    ],
)
def test_a_gpu_waits_for_a_table_only_where_the_sum_takes_longer(
    labels, components, per_label, expected
):
    class OnGpu:
        """As much of a tensor on a GPU as the choice looks at."""

        ndim, dtype, shape, device = 1, torch.float32, (labels,), torch.device("cuda")

    sigma = torch.ones(2) if per_label else torch.tensor(1.0)
    route = evidence.choose_route(OnGpu(), sigma, mixture(components), evidence.Request())
    assert route == expected
