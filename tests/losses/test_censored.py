"""Labels that are only known to lie beyond the end of the range."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from depthbal.losses import (
    BinsLoss,
    BMCLoss,
    BNILoss,
    CombinedLoss,
    DepthNoise,
    FocalRLoss,
    GAILoss,
    GradientLoss,
    HuberLoss,
    L1Loss,
    MSELoss,
    ReweightedLoss,
    SILogLoss,
)
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import gradcheck
from tests.reference import censored

END, SHARE, LENGTH = 10.0, 0.3, 8.0  # c, the share of labels beyond, the length they stand for
RANGE = (-4.0, END)
RATE = SHARE / (1 - SHARE) / LENGTH
EDGES = np.linspace(*RANGE, 1401)
NEAR = GaussianMixture([1.0], [3.0], [1.5**2])


def density(labels):
    """Of the labels up to c; so little of a normal lies elsewhere that nobody can tell."""
    return torch.distributions.Normal(3.0, 1.5).log_prob(labels.double()).exp()


def histogram(beyond=SHARE / (1 - SHARE)):
    counts = density(torch.from_numpy((EDGES[1:] + EDGES[:-1]) / 2)) * np.diff(EDGES)
    return Histogram(EDGES, counts, beyond=beyond)


def gai(**options):
    loss = GAILoss(NEAR, **({"label_range": RANGE, "beyond_length": LENGTH} | options))
    loss.set_beyond(histogram())
    return loss


def labels(dtype=torch.float64):
    """Predictions from 40 sigma before c to 50 beyond it, each with a label up to c and beyond."""
    preds = torch.tensor([-30.0, -5.0, 3.0, 7.5, 9.0, 10.0, 10.5, 14.0, 25.0, 60.0], dtype=dtype)
    target = torch.tensor([2.0, 3.0, 3.5, 7.0, 9.9, 9.9, 9.0, 5.0, 9.0, 8.0], dtype=dtype)
    beyond = torch.arange(20) >= 10
    return preds.repeat(2), target.repeat(2).masked_fill(beyond, torch.nan), beyond


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", [GAILoss, BNILoss, BMCLoss])
@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_values_and_gradients_are_those_of_quadrature_to_40_sigma(kind, sigma, dtype):
    preds, target, beyond = labels(dtype)
    options = {"label_range": RANGE, "beyond_length": LENGTH, "init_noise_sigma": sigma}
    options |= {"scale": "none", "reduction": "none"}
    loss = kind(NEAR, **options) if kind is GAILoss else kind(**options)
    y = torch.linspace(-60, 60, 24_001, dtype=torch.float64)
    near = y, density(y) * float(y[1] - y[0])
    if kind is BNILoss:
        loss.set_prior(histogram())
        near = tuple(map(torch.from_numpy, (histogram().centers, histogram().counts)))
    if kind is BMCLoss:  # whose labels up to c are the batch's
        near = target[~beyond].double(), torch.full((10,), 0.1, dtype=torch.float64)
    loss.set_beyond(histogram())
    fast, slow = (part.clone().requires_grad_() for part in (preds, preds.double()))
    value = loss(fast, target, ~beyond, beyond)
    expected = censored(slow, beyond, target.double().nan_to_num(), near, END, RATE, sigma)
    value.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("preds", [-30.0, 0.0, 5.0, 9.0, 10.0, 11.0, 14.0])
def test_the_probabilities_of_all_labels_and_of_one_beyond_sum_to_1(preds):
    loss = gai(scale="none", reduction="none", init_noise_sigma=1.3)
    y = torch.linspace(-30, 40, 14_001, dtype=torch.float64)
    target = torch.cat([y, y[:1]])
    beyond = torch.arange(len(target)) == len(y)
    found = torch.exp(-loss(torch.full_like(target, preds), target, ~beyond, beyond))
    observed = torch.trapezoid(found[:-1] * density(y), y)
    assert observed + found[-1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("noise", ["learned", DepthNoise(1.0, slope=0.05)], ids=["one", "depth"])
def test_gradients_are_differences_of_the_value(noise):
    torch.manual_seed(0)
    loss = gai(noise=copy.deepcopy(noise), scale="none", detach_noise=False).double()
    preds = 10 * torch.rand(3, 5, dtype=torch.float64)
    beyond = torch.rand(3, 5) < 0.4
    mask = (torch.rand(3, 5) < 0.7) & ~beyond
    assert gradcheck(loss, preds, preds + 0.5, mask, beyond)


def minimiser(value):
    """The location of the lowest mean loss; infinity where it falls for ever."""
    places = torch.linspace(0, 60, 121, dtype=torch.float64)
    best = float(places[torch.stack([value(p) for p in places]).argmin()])
    if best > 59:
        return math.inf
    ends = (best - 0.5, best + 0.5)
    found = minimize_scalar(lambda p: float(value(torch.tensor(p).double())), bounds=ends)
    return found.x


# Minimisers of the mean loss of 40,000 drawn labels, whose error grows with the share beyond; of
# the facts that this package was built from.
RECOVERED = {
    6.0: (6.00, 6.00, 6.00, 6.00, 5.08),
    8.0: (8.00, 9.18, 8.00, 7.66, 7.22),
    9.0: (9.00, math.inf, 9.02, 7.98, 10.78),
    10.0: (10.02, math.inf, 9.94, 8.16, 12.46),
}


@pytest.mark.parametrize("true", RECOVERED)
def test_only_all_labels_in_the_evidence_recover_where_a_label_lies(true):
    """Labels of one true location under p_train, of which five losses make a prediction."""
    y = torch.linspace(-4, END, 1401, dtype=torch.float64)
    own = torch.distributions.Normal(true, 1.0).log_prob(y).exp() * density(y) * float(y[1] - y[0])
    far = RATE * torch.special.ndtr(torch.tensor(true - END, dtype=torch.float64))
    weights = torch.cat([own, far[None]]) / (own.sum() + far)
    target, beyond = torch.cat([y, y[:1]]), torch.arange(len(y) + 1) == len(y)
    options = {"scale": "none", "reduction": "none"}
    both, near = gai(**options), GAILoss(NEAR, label_range=RANGE, **options)

    def mean(loss, censor, plain=False):
        def value(p):
            preds = p.expand(len(target))
            if loss is both and censor:
                return weights @ loss(preds, target, ~beyond, beyond)
            parts = (target - p) ** 2 / 2 if plain else loss(preds, target)
            evidence = 0 if plain else loss(p[None], p[None])
            parts = parts.masked_fill(beyond, 0)
            tail = evidence - torch.special.log_ndtr(p - END)
            return weights @ torch.where(beyond, tail, parts) if censor else weights @ parts

        return minimiser(value)

    variants = [(both, True), (near, True), (near, False), (both, False), (None, True, True)]
    found = [mean(*variant) for variant in variants]
    assert found[0] == pytest.approx(true, abs=0.01)  # exactly, but for the grid of labels
    assert found == pytest.approx(RECOVERED[true], abs=0.1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", [GAILoss, BNILoss])
def test_the_fast_sum_and_its_table_equal_label_by_label(kind, reduction):
    torch.manual_seed(0)
    edges = np.linspace(*RANGE, 95)
    counts = density(torch.from_numpy((edges[1:] + edges[:-1]) / 2)).numpy()

    def make(**options):
        return kind(Histogram(edges, counts, beyond=4), label_range=RANGE, **options)

    preds = 14 * torch.rand(1, 253, 507)
    target, beyond = preds + torch.randn_like(preds), torch.rand_like(preds) < 0.2
    mask = (torch.rand_like(preds) < 0.6) & ~beyond
    preds = preds.masked_fill(~(mask | beyond), torch.nan)
    fast, slow = preds.clone().requires_grad_(), preds.double().requires_grad_()
    value = make(reduction=reduction)(fast, target, mask, beyond)
    each = make(reduction="none")(slow, target.double(), mask, beyond)
    expected = each.sum() / ((mask | beyond).sum() if reduction == "mean" else 1)
    value.backward()
    expected.backward()
    torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-5)
    scale = (mask | beyond).sum() if reduction == "mean" else 1
    torch.testing.assert_close(fast.grad.double() * scale, slow.grad * scale, rtol=1e-3, atol=1e-4)


def test_without_labels_beyond_nothing_changes():
    preds, target, beyond = labels()
    plain = BNILoss(histogram(beyond=0), label_range=RANGE)(preds[~beyond], target[~beyond])
    assert plain == BNILoss(histogram(beyond=0))(preds[~beyond], target[~beyond])
    assert plain < BNILoss(histogram(), label_range=RANGE)(preds[~beyond], target[~beyond])


def test_by_default_the_density_goes_on_as_it_is_below_the_end():
    halves = BNILoss(Histogram([-4.0, 5.0, 10.0], [9, 1], beyond=5), label_range=RANGE)
    assert halves.tail.log_density.exp() == pytest.approx(0.02)
    # and as that of the kernel where the world is another: of 1 / y, y times what it was
    log = BNILoss(Histogram([1.0, 5.0, 10.0], [4, 5], beyond=5), label_range=(1.0, END))
    other = BNILoss(
        Histogram(np.linspace(1, 10, 91), np.full(90, 0.1), beyond=5),
        label_range=(1.0, END),
        relative_to="log_uniform",
    )
    assert log.tail.log_density.exp() == pytest.approx(1 / 9)
    assert other.tail.log_density.exp() == pytest.approx(9.5 / 49.5, rel=1e-3)


def test_half_precision_is_computed_in_float32():
    preds, target, beyond = labels(torch.float32)
    half = preds.to(torch.bfloat16)
    target = target.nan_to_num()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = gai()(half, target, ~beyond, beyond)
    assert value == gai()(half.float(), target, ~beyond, beyond)


def test_bmc_counts_the_share_of_the_training_labels_whatever_the_batch_holds():
    loss = BMCLoss(label_range=RANGE, beyond_length=LENGTH)
    loss.set_prior(histogram())
    preds, none = torch.tensor([2.0, 12.0]), torch.zeros(2, dtype=torch.bool)
    value = loss(preds, preds, none, ~none)  # no label up to c: whatever p, the label lies beyond
    observed = loss(preds, torch.tensor([2.0, 3.0]), ~none, none)
    assert value.isfinite()
    assert observed > BMCLoss()(preds, torch.tensor([2.0, 3.0]))


@pytest.mark.parametrize(
    "loss",
    [MSELoss, L1Loss, HuberLoss, FocalRLoss, SILogLoss, ReweightedLoss],
    ids=lambda loss: loss.__name__,
)
def test_losses_that_do_not_balance_are_one_sided(loss):
    one = loss(label_range=RANGE, reduction="none")
    one.set_prior(histogram())
    preds, none = torch.tensor([2.0, 9.5, 10.0, 60.0]), torch.zeros(4, dtype=torch.bool)
    preds.requires_grad_()
    value = one(preds, torch.full((4,), torch.nan), none, ~none)
    value.sum().backward()
    ends = one(preds.detach().clamp(max=END), torch.full((4,), END))
    assert loss is SILogLoss or value[2:].eq(0).all()
    assert (preds.grad[:2] < 0).any()
    torch.testing.assert_close(value.detach(), ends)


def test_bins_give_labels_beyond_to_the_last_one_and_the_prior_counts_them_there():
    loss = BinsLoss(histogram(), n_bins=5, label_range=RANGE)
    plain = BinsLoss(histogram(beyond=0), n_bins=5, label_range=RANGE)
    logits = torch.randn(2, 5, 3, 4)
    beyond = torch.rand(2, 1, 3, 4) < 0.5
    target = torch.full((2, 1, 3, 4), 2.5)
    value = loss(logits, target, ~beyond, beyond)
    assert value == plain(logits, target.masked_fill(beyond, END), None)
    shares, without = (one.initial_logits.exp() for one in (loss, plain))
    torch.testing.assert_close(shares[-1], without[-1] * (1 - SHARE) + SHARE, atol=1e-5, rtol=0)


def test_bins_read_out_what_lies_beyond_as_the_end_of_a_range_that_goes_on():
    even = Histogram(np.linspace(*RANGE, 15), np.ones(14), beyond=6)  # 0.3 of all, as 6 of label
    loss = BinsLoss(even, n_bins=57, label_range=RANGE)
    nothing = loss.initial_logits[None]  # says of a picture what holds for all
    middle, beyond = (RANGE[0] + END) / 2, END
    assert loss.readout(nothing).item() == pytest.approx((14 * middle + 6 * beyond) / 20, abs=0.01)
    loss.set_world(tau=0.0)
    assert loss.readout(nothing).item() == pytest.approx(0.7 * middle + 0.3 * beyond, abs=0.01)
    # three in four training labels lie below 3: one beyond stands for 4 times the length
    steps = Histogram([-4.0, 3.0, 10.0], [3, 1], beyond=1)
    loss = BinsLoss(steps, n_bins=57, label_range=RANGE)
    found = loss.readout(loss.initial_logits[None]).item()
    assert found == pytest.approx((14 * middle + 7 * beyond) / 21, abs=0.05)
    again = BinsLoss(n_bins=57, label_range=RANGE)
    again.load_state_dict(loss.state_dict())
    assert again.readout(loss.initial_logits[None]).item() == found


def test_sums_of_losses_pass_them_on_and_differences_leave_them_out():
    preds, target = 9 * torch.rand(2, 1, 6, 6) + 1, 9 * torch.rand(2, 1, 6, 6) + 1
    beyond = torch.rand(2, 1, 6, 6) < 0.3
    both = CombinedLoss([gai(), GradientLoss((1, 2))], [1.0, 0.5])
    value = both(preds, target, ~beyond, beyond)
    apart = gai()(preds, target, ~beyond, beyond) + 0.5 * GradientLoss((1, 2))(
        preds, target, ~beyond
    )
    torch.testing.assert_close(value, apart)


def test_a_state_dict_keeps_the_density_beyond():
    preds, target, beyond = labels()
    loss = gai()
    other = GAILoss(label_range=RANGE, beyond_length=LENGTH)
    other.load_state_dict(loss.state_dict())
    assert other(preds, target, ~beyond, beyond) == loss(preds, target, ~beyond, beyond)
    assert GAILoss(**loss.init_args).beyond_length == LENGTH
