"""Losses of logarithms, in label units throughout, against sums over labels."""

import math

import numpy as np
import pytest
import torch

from depthbal.losses import (
    BalanceMap,
    BMCLoss,
    BNILoss,
    CombinedLoss,
    GAILoss,
    GradientLoss,
    LogLabelLoss,
    MSELoss,
)
from depthbal.losses.log_labels import LogBalanceMap
from depthbal.priors import Histogram
from tests import reference

RANGE = (1.0, 80.0)
EDGES = np.linspace(*RANGE, 159)
LONG_TAIL = Histogram(EDGES, np.exp(-EDGES[1:] / 12) + 0.01 * (EDGES[1:] > 40))
WORLDS = ["uniform", "log_uniform"]
SIGMA = 0.15
PLACES = [1.0, 1.4, 7.0, 33.0, 78.0, 120.0]
exact = {"scale": "none", "reduction": "none", "init_noise_sigma": SIGMA, "label_range": RANGE}


def loss_of(inner=BNILoss, world="uniform", **options):
    loss = LogLabelLoss(inner(**{**exact, "relative_to": world, **options})).double()
    loss.set_prior(LONG_TAIL)
    return loss


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("p", PLACES)
def test_loss_readout_and_interval_are_those_of_sums_over_labels_in_metres(world, p):
    loss, preds = loss_of(world=world), torch.tensor([p], dtype=torch.float64)
    preds.requires_grad_()
    told = reference.log_label_terms(p, 5.0, SIGMA, LONG_TAIL, world, RANGE)
    value = loss(preds, torch.tensor([5.0]).double())
    assert value.item() == pytest.approx(told["loss"], rel=1e-5, abs=2e-4)
    value.backward()
    step = 1e-4 * p
    ends = [
        reference.log_label_terms(p + side * step, 5.0, SIGMA, LONG_TAIL, world, RANGE)["loss"]
        for side in (-1, 1)
    ]
    slope = (ends[1] - ends[0]) / (2 * step)
    assert preds.grad.item() == pytest.approx(slope, rel=2e-3, abs=2e-3)
    assert loss.readout(preds).item() == pytest.approx(told["mean"], rel=1e-5)
    low, high = loss.interval(preds)
    assert (low.item(), high.item()) == pytest.approx(told["interval"], rel=1e-4)


@pytest.mark.parametrize("world", WORLDS)
def test_a_plain_loss_is_balanced_afterwards_by_the_same_sums(world, tmp_path):
    places = [1.3, 4.0, 20.0, 60.0]
    told = [reference.log_label_terms(p, 5.0, SIGMA, LONG_TAIL, world, RANGE) for p in places]
    balance = LogBalanceMap(LONG_TAIL, SIGMA, RANGE).relative_to(world)
    seen = torch.tensor([one["expected"] for one in told]).double()
    expected = torch.tensor([one["mean"] for one in told]).double()
    torch.testing.assert_close(
        balance.locations(seen), torch.tensor(places).double(), rtol=2e-3, atol=0
    )
    torch.testing.assert_close(balance(seen), expected, rtol=2e-3, atol=0)
    assert balance.locations(torch.tensor([0.0, 1e30])).isfinite().all()
    balance.save(tmp_path / "map.json")
    again = BalanceMap.load(tmp_path / "map.json")
    assert torch.equal(again(seen), balance(seen))
    lower, upper = again.interval(seen)
    assert ((lower < expected) & (expected < upper)).all()


def test_the_readout_is_finite_and_increases_from_anywhere():
    loss = loss_of()
    preds = torch.tensor([-5.0, 0.0, 1e-6, 0.5, 1.0, 40.0, 80.0, 200.0, 1e5, 1e30]).double()
    found = loss.readout(preds)
    assert (found.diff() >= 0).all()
    assert 1.0 <= found[0] < 1.001 < 79.9 < found[-1] <= 80
    many = torch.linspace(0.2, 200, 100_000)
    torch.testing.assert_close(
        loss.readout(many), loss.readout(many.double()).float(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_does_not_count_sends_no_gradient_whatever_it_holds(dtype):
    loss = LogLabelLoss(GAILoss(n_components=4, init_noise_sigma=SIGMA, label_range=RANGE))
    loss.set_prior(LONG_TAIL)
    preds = torch.tensor([2.0, 9.0, math.nan, -1.0, 0.0], dtype=dtype).requires_grad_()
    target = torch.tensor([2.5, 8.0, 0.0, math.inf, 0.0])
    mask = torch.tensor([True, True, False, False, False])
    loss(preds, target, mask).backward()
    assert preds.grad.isfinite().all()
    assert (preds.grad != 0).tolist() == mask.tolist()
    alone = preds.detach()[:2].requires_grad_()
    assert loss(alone, target[:2]).item() == pytest.approx(loss(preds, target, mask).item())


@pytest.mark.parametrize("inner", [MSELoss, GAILoss, BNILoss, BMCLoss])
def test_labels_beyond_the_range_pull_outwards_and_stop(inner):
    options = {} if inner is MSELoss else {"init_noise_sigma": SIGMA}
    loss = LogLabelLoss(inner(**options), label_range=RANGE)
    prior = Histogram(LONG_TAIL.edges, LONG_TAIL.counts, beyond=0.2 * LONG_TAIL.total)
    loss.set_prior(prior)
    loss.set_beyond(prior)
    preds = torch.tensor([20.0, 30.0, 70.0, 400.0], requires_grad=True)
    target = torch.tensor([20.0, 31.0, 0.0, 0.0])
    beyond = torch.tensor([False, False, True, True])
    value = loss(preds, target, ~beyond, beyond)
    value.backward()
    assert value.isfinite()
    assert preds.grad[2] < 0
    assert preds.grad[3].abs() < 1e-6


@pytest.mark.parametrize("world", WORLDS)
def test_a_batch_balances_for_the_same_world_as_the_histogram_of_its_labels(world):
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(
        rng.choice(LONG_TAIL.centers, 4000, p=LONG_TAIL.counts / LONG_TAIL.total)
    )
    fine = Histogram(np.linspace(*RANGE, 80_001)).update(labels)
    preds = torch.linspace(1, 80, 4000, dtype=torch.float64)
    options = {**exact, "init_noise_sigma": 0.5}
    batch = LogLabelLoss(BMCLoss(**options, relative_to=world))(preds, labels)
    known = LogLabelLoss(BNILoss(**options, relative_to=world))
    known.set_prior(fine)
    torch.testing.assert_close(batch, known(preds, labels), rtol=0, atol=2e-3)


def test_parts_of_a_sum_may_be_of_logarithms():
    inner = LogLabelLoss(BNILoss(init_noise_sigma=SIGMA))
    loss = CombinedLoss([inner, GradientLoss()], [1.0, 0.5])
    loss.set_label_range(RANGE)
    loss.set_prior(LONG_TAIL)
    preds = torch.tensor([[2.0, 30.0], [4.0, 5.0]])
    assert torch.equal(loss.readout(preds), inner.readout(preds))
    again = CombinedLoss(**loss.init_args)
    again.load_state_dict(loss.state_dict())
    assert again(preds, preds + 1) == loss(preds, preds + 1)
