"""Gradient matching, and sums of losses."""

import pickle

import pytest
import torch

from depthbal.losses import (
    BinsLoss,
    CombinedLoss,
    GAILoss,
    GradientLoss,
    L1Loss,
    MSELoss,
    SILogLoss,
)
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import on_two_ranks
from tests.reference import gradient_matching

RANGE = (0.7, 10.0)
MIXTURE = GaussianMixture([0.75, 0.25], [2.0, 6.0], [1.0, 4.0])


def maps(shape=(2, 7, 5), share=0.8):
    generator = torch.Generator().manual_seed(0)
    preds, target = 0.7 + 9 * torch.rand(2, *shape, generator=generator, dtype=torch.float64)
    return preds, target, torch.rand(shape, generator=generator) < share


@pytest.mark.parametrize("space", ["log", "label"])
@pytest.mark.parametrize("strides", [(1,), (1, 2, 4, 8)])
@pytest.mark.parametrize("share", [0.8, 0.1])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_gradient_matching_equals_pair_by_pair(space, strides, share, dtype, rtol):
    preds, target, mask = maps(share=share)
    slow, fast = preds.clone().requires_grad_(), preds.to(dtype).requires_grad_()
    expected = gradient_matching(slow, target, mask, strides, space == "log")
    expected.backward()
    hidden = torch.where(mask, target, torch.nan).to(dtype)
    value = GradientLoss(strides, space=space)(fast, hidden, mask)
    value.backward()
    assert value.item() == pytest.approx(expected.item(), rel=rtol)
    torch.testing.assert_close(fast.grad.double(), slow.grad, rtol=rtol, atol=1e-7)


def test_gradient_matching_is_blind_to_the_scale_and_sees_a_blurred_edge():
    target = torch.ones(1, 1, 6, 6)
    target[..., 3:] = 4.0
    blurred = target.clone()
    blurred[..., 3] = 2.5
    loss = GradientLoss()
    assert loss(3 * target, target).item() == pytest.approx(0, abs=1e-6)
    assert loss(blurred, target).item() > 0.03


def test_gradient_matching_of_an_empty_mask_is_0_with_a_gradient_path():
    preds, target, mask = maps()
    value = GradientLoss()(preds.requires_grad_(), target, torch.zeros_like(mask))
    value.backward()
    assert value.item() == 0
    assert (preds.grad == 0).all()


def test_over_ranks_pairs_of_all_of_them_weigh_alike(tmp_path):
    preds, target, mask = maps(shape=(4, 7, 5))
    expected = GradientLoss((1, 2))(preds, target, mask)
    halves = on_two_ranks(_of_half, tmp_path)
    torch.testing.assert_close(halves, expected.expand(2), rtol=1e-12, atol=0)


def _of_half(rank):
    preds, target, mask = (part[rank::2] if rank else part[::2] for part in maps((4, 7, 5)))
    return GradientLoss((1, 2))(preds.clone().requires_grad_(), target, mask).detach()


def gai(**options):
    return GAILoss(MIXTURE, label_range=RANGE, noise="learned", **options)


def test_a_sum_is_that_of_its_parts_and_reads_out_like_the_one_that_balances():
    preds, target, mask = maps()
    parts, factors = [L1Loss(label_range=RANGE), gai(), GradientLoss()], [0.5, 1.0, 2.0]
    loss = CombinedLoss(parts, factors)
    alone = preds.clone().requires_grad_()
    expected = sum(f * part(alone, target, mask) for f, part in zip(factors, parts, strict=True))
    value = loss(preds.requires_grad_(), target, mask)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(
        torch.autograd.grad(value, preds)[0], torch.autograd.grad(expected, alone)[0]
    )
    assert loss.balances
    assert loss.label_range == RANGE
    torch.testing.assert_close(loss.readout(preds), parts[1].readout(preds))
    torch.testing.assert_close(loss.interval(preds), parts[1].interval(preds))
    assert loss.noise_parameters() == parts[1].noise_parameters() == list(loss.parameters())
    assert loss.noise_sigma == 1.0
    assert not CombinedLoss([MSELoss(), GradientLoss()]).balances


def test_a_sum_is_made_again_from_plain_values_and_its_state(tmp_path):
    preds, target, mask = maps()
    loss = CombinedLoss([gai(), GradientLoss((1, 3), space="label")], [1.0, 0.1])
    torch.save((loss.init_args, loss.state_dict()), tmp_path / "saved.pt")
    arguments, state = torch.load(tmp_path / "saved.pt", weights_only=True)
    fresh = CombinedLoss(**arguments)
    assert fresh.needs_prior
    fresh.load_state_dict(state)
    for other in (fresh, pickle.loads(pickle.dumps(loss))):
        assert other(preds, target, mask).item() == loss(preds, target, mask).item()
    unset = CombinedLoss([MSELoss(), GAILoss()])
    unset.set_prior(Histogram([0.7, 5.0, 10.0], [3, 1]))
    unset.set_label_range(RANGE)
    assert not unset.needs_prior
    assert unset.label_range == unset.main.label_range == RANGE


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CombinedLoss([]), "factor per loss"),
        (lambda: CombinedLoss([MSELoss()], [1.0, 2.0]), "got 2 for 1"),
        (lambda: CombinedLoss([MSELoss(), BinsLoss()]), "logits"),
        (lambda: GradientLoss((0,)), "strides of 1 or more"),
        (lambda: GradientLoss()(torch.ones(3), torch.ones(3)), "expected maps"),
        (lambda: GradientLoss()(torch.ones(2, 2), torch.zeros(2, 2)), "4 targets"),
    ],
)
def test_what_cannot_be_summed_or_matched_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize(
    ("preds", "target"),
    [
        ([2.0, 5.0], [2.0, 5.0]),  # a root of 0 has no slope
        (
            [3 * k for k in (0.7, 1.3, 2.9)],
            [0.7, 1.3, 2.9],
        ),  # a variance as a difference of squares
        ([0.0, 1e-30, 3e38], [1.0, 2.0, 3.0]),  # logarithms of vanished and huge predictions
        ([2.0], [1.0]),  # the variance of one label
    ],
)
def test_silog_is_free_of_the_known_causes_of_nan(share, preds, target):
    leaf = torch.tensor(preds, requires_grad=True)
    value = SILogLoss(share)(leaf, torch.tensor(target))
    value.backward()
    assert value.item() >= 0
    assert torch.isfinite(value)
    assert torch.isfinite(leaf.grad).all()


def test_silog_of_exact_multiples_is_never_negative():
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        target = 0.5 + 80 * torch.rand(500, generator=generator)
        assert SILogLoss(1.0)(1.7 * target, target).item() >= 0
