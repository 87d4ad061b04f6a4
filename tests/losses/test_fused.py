"""The balanced loss as one sum: the numbers of the general way, in the memory of plain MSE."""

from functools import partial

import pytest
import torch
from measuring import peak_mib

from depthbal.losses import BMCLoss, BNILoss, GAILoss, tables
from depthbal.losses.evidence import Wanted
from depthbal.priors import GaussianMixture, Histogram

PRIOR = GaussianMixture([0.5, 0.3, 0.15, 0.05], [1.5, 2.5, 5.0, 9.0], [0.3, 0.2, 1.0, 0.4])
BINS = Histogram([0.0, 2.0, 4.0, 6.0, 10.0], [50, 30, 15, 5])
TABULATED = 2**18 + 1  # by K = 4 the pairs from which on there is a table


def pair(loss, *arguments, **fixed):
    """Return makers of a loss, and of one whose own elementwise() makes it go the general way."""

    class General(loss):
        def elementwise(self, preds, target, mask):
            return super().elementwise(preds, target, mask)

    return [partial(kind, *arguments, **fixed) for kind in (loss, General)]


FAMILIES = ("laplace", "huber", "student")
PAIRS = {
    "gai": pair(GAILoss, PRIOR),
    "bni": pair(BNILoss, BINS),
    "bmc": pair(BMCLoss),
    **{name: pair(BNILoss, BINS, family=name) for name in FAMILIES},
}


def batch(labels: int, dtype: torch.dtype):
    """Return labels of which the mask hides some, with NaN there and huge predictions."""
    generator = torch.Generator().manual_seed(labels)
    target = 10 * torch.rand(labels, generator=generator, dtype=torch.float64)
    preds = target + torch.randn(labels, generator=generator, dtype=torch.float64)
    mask = torch.rand(labels, generator=generator) < 0.6
    mask[:2] = False
    preds[0], preds[1], target[1] = torch.nan, 6e4, torch.inf
    return preds.to(dtype), target.to(dtype), mask


def value_and_gradients(loss, preds, target, mask):
    leaf = preds.clone().requires_grad_()
    loss.zero_grad()
    value = loss(leaf, target, mask)
    (3 * value).backward()
    return value.detach(), leaf.grad, *(parameter.grad for parameter in loss.parameters())


def assert_same_numbers(one, other, rtol: float):
    for got, expected in zip(one, other, strict=True):
        assert got.dtype == expected.dtype
        # The value and the gradient of sigma are differences of terms of order 1.
        largest = expected.abs().max().clamp(min=1 if expected.ndim == 0 else 0).item()
        torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol * largest)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("noise", ["fixed", "learned"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("scale", ["mean", "none", "pixel"])
def test_equals_the_general_way_in_float64(name, noise, reduction, scale):
    kwargs = {"noise": noise, "reduction": reduction, "scale": scale}
    kwargs |= {"init_noise_sigma": 0.7, "mse_weight": 0.8, "balance_weight": 0.3}
    inputs = batch(507, torch.float64)
    one, other = (value_and_gradients(make(**kwargs).double(), *inputs) for make in PAIRS[name])
    assert_same_numbers(one, other, 1e-12)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("labels", [1, 507, TABULATED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:BMCLoss met a batch")
def test_equals_the_general_way_in_low_precision(name, labels, dtype):
    preds, target, mask = batch(max(labels, 2), dtype)
    inputs = [part[-labels:] for part in (preds.nan_to_num(3.0), target, mask)]
    one, other = (value_and_gradients(make(noise="learned"), *inputs) for make in PAIRS[name])
    assert_same_numbers(one[:1] + one[2:], other[:1] + other[2:], 1e-5)
    # Half precision is the gradient's own; there the two may round to neighbours.
    assert_same_numbers(one[1:2], other[1:2], max(1e-5, torch.finfo(dtype).eps))


@pytest.mark.parametrize("make", PAIRS["gai"])
def test_a_second_derivative_is_an_error_and_not_wrong(make):
    preds, target, mask = batch(507, torch.float64)
    value = make()(preds.requires_grad_(), target, mask)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(value, preds, create_graph=True)


def test_an_elementwise_loss_of_a_subclass_is_not_passed_over():
    class Doubled(GAILoss):
        def elementwise(self, preds, target, mask):
            return 2 * super().elementwise(preds, target, mask)

    inputs = batch(507, torch.float64)
    assert Doubled(PRIOR)(*inputs).item() == pytest.approx(2 * GAILoss(PRIOR)(*inputs).item())


def with_bad_labels(labels: int, dtype: torch.dtype):
    preds, target, mask = batch(labels, dtype)
    mask[5:9] = True
    preds[5:7], target[8] = torch.nan, torch.inf
    return preds, target, mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("labels", [507, TABULATED])
def test_values_that_are_not_finite_are_counted_before_anything_is_summed(dtype, labels):
    with pytest.raises(ValueError, match="3 NaN or infinite"):
        GAILoss(PRIOR)(*with_bad_labels(labels, dtype))


def test_on_devices_bad_labels_are_counted_on_the_way():
    preds, target, mask = with_bad_labels(507, torch.float32)
    with pytest.raises(ValueError, match="3 NaN or infinite"):
        GAILoss(PRIOR)._sum(preds, torch.tensor(1.0), target, mask, PRIOR, Wanted(), True)


def test_nothing_is_read_back_from_a_device():
    preds, target, mask = (part.to("meta") for part in batch(5 * 10**6, torch.float32))
    loss = GAILoss(PRIOR, noise="learned").to("meta")
    leaf = preds.requires_grad_()
    # Reading a tensor without contents would be an error; autocast does not know of such.
    loss.reduced(leaf, target, mask).backward()
    assert leaf.grad.shape == preds.shape


def test_what_the_mask_hides_does_not_widen_the_table(monkeypatch):
    ranges = []
    build = tables.build
    monkeypatch.setattr(tables, "build", lambda *a: ranges.append(a[1:3]) or build(*a))
    preds, target, mask = batch(TABULATED, torch.float32)
    GAILoss(PRIOR)(preds, target, mask)
    low, high = preds[mask].aminmax()
    assert ranges == [pytest.approx((low.item(), high.item()), abs=1e-5)]


@pytest.mark.parametrize("noise", ["fixed", "learned"])
def test_memory_is_the_stored_gradient_and_the_one_returned(noise):
    preds, target, mask = batch(2**22, torch.float32)
    loss = GAILoss(PRIOR, noise=noise)
    leaf = preds.requires_grad_()
    peak = peak_mib(lambda: loss(leaf, target, mask).backward(), "cpu")
    assert peak < 2.2 * preds.nbytes / 2**20
    # Without gradients nothing of the labels' number is made at all.
    with torch.no_grad():
        peak = peak_mib(lambda: loss(leaf, target, mask), "cpu")
    assert peak < 0.2 * preds.nbytes / 2**20


@pytest.mark.parametrize("name", ["gai", "bmc"])
def test_a_compiled_loss_equals_the_eager_one(name):
    torch._dynamo.reset()
    loss = PAIRS[name][0](noise="learned")
    preds, target, mask = batch(333, torch.float32)
    compiled = torch.compile(loss, backend="aot_eager")
    one, other = (value_and_gradients(f, preds, target, mask) for f in (compiled, loss))
    assert_same_numbers(one, other, 1e-5)
