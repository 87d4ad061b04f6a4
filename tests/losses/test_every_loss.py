"""What every loss keeps to behind the common signature."""

import pickle
from functools import partial

import pytest
import torch
from torch import nn

from depthbal.losses import (
    LOSSES,
    BMCLoss,
    CombinedLoss,
    GAILoss,
    GradientLoss,
    L1Loss,
    LogLabelLoss,
    NonFiniteError,
)
from depthbal.losses.balanced import BalancedMSELoss
from depthbal.priors import Histogram
from tests.losses.checks import LONG_TAIL, drawn
from tests.reference import balanced_mse


def of_logarithms(**kwargs):
    return LogLabelLoss(BMCLoss(relative_to="log_uniform", **kwargs))


def summed(**kwargs):
    return CombinedLoss([L1Loss(**kwargs), GAILoss(**kwargs)], [0.5, 2.0])


MADE = {
    **LOSSES,
    "CombinedLoss": summed,
    "GradientLoss": GradientLoss,
    "LogLabelLoss": of_logarithms,
}


batch = partial(drawn, 2, 1, 13, 17)


def make(name: str, **kwargs) -> nn.Module:
    loss = MADE[name](**kwargs)
    if loss.needs_prior:
        loss.set_prior(LONG_TAIL)
    return loss


every_loss = pytest.mark.parametrize("name", MADE)
of_labels = pytest.mark.parametrize("name", [name for name in MADE if name != "GradientLoss"])
plain = pytest.mark.parametrize("name", sorted(LOSSES))
balanced = pytest.mark.parametrize("name", ["BMCLoss", "BNILoss", "GAILoss"])
with_prior = pytest.mark.parametrize("name", ["BNILoss", "GAILoss"])


@with_prior
def test_equals_the_slow_twin_in_value_and_gradient(name):
    preds, target, _ = batch()
    loss = make(name, init_noise_sigma=0.6, noise="learned").double()
    preds = preds.flatten().requires_grad_()
    value = loss(preds, target.flatten())
    value.backward()
    slow = preds.detach().clone().requires_grad_()
    log_sigma = loss.noise.log_sigma.detach().clone().requires_grad_()
    prior = loss.prior
    expected = balanced_mse(
        slow, target.flatten(), prior.weights, prior.means, prior.variances, log_sigma.exp()
    )
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(preds.grad, slow.grad)
    torch.testing.assert_close(loss.noise.log_sigma.grad, log_sigma.grad)


@of_labels
def test_a_mask_equals_dropping_the_entries_even_nan(name):
    preds, target, mask = batch()
    masked = preds.masked_fill(~mask, torch.nan).requires_grad_()
    value = make(name)(masked, target.masked_fill(~mask, torch.inf), mask)
    value.backward()
    dropped = preds[mask].requires_grad_()
    expected = make(name)(dropped, target[mask])
    expected.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(masked.grad[mask], dropped.grad)
    assert (masked.grad[~mask] == 0).all()


@every_loss
@pytest.mark.filterwarnings("ignore:BMCLoss met a batch")
def test_an_empty_mask_gives_exactly_0_with_a_gradient_path(name):
    preds, target, mask = batch()
    preds.requires_grad_()
    value = make(name)(preds, target, torch.zeros_like(mask))
    assert value.item() == 0
    value.backward()
    assert (preds.grad == 0).all()


@pytest.mark.parametrize("name", ["MSELoss", "BMCLoss", "BNILoss", "GAILoss"])
@pytest.mark.parametrize("huge", [2e19, 1e25, -3e38])
def test_finite_predictions_whose_loss_is_not_are_reported_before_they_reach_sigma(name, huge):
    with pytest.raises(NonFiniteError, match="so large that the loss is not"):
        make(name)(torch.tensor([1.0, huge, 3.0]), torch.tensor([1.0, 2.0, 3.0]))


def zeros(*shapes):
    return [torch.zeros(shape) for shape in shapes]


@plain
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (zeros(4, (4, 1)), "differ; nothing is broadcast"),
        ([*zeros(4, 4), torch.ones(4, 1, dtype=torch.bool)], "mask"),
        (zeros(4, 4, 4), "boolean mask"),
        ([torch.zeros(4), torch.zeros(4, dtype=torch.int64)], "floating point"),
        ([torch.tensor([1.0, *[torch.nan] * 3]), torch.ones(4)], "3 NaN or infinite"),
    ],
)
def test_wrong_inputs_are_errors_and_nothing_is_broadcast(name, inputs, message):
    with pytest.raises(ValueError, match=message):
        make(name)(*inputs)


@every_loss
def test_half_precision_under_autocast_computes_in_float32(name):
    preds, target, mask = batch(dtype=torch.float32)
    expected = make(name)(preds.bfloat16().float(), target, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = make(name)(preds.bfloat16(), target, mask)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


@every_loss
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_agree(name, reduction):
    preds, target, mask = batch()
    elementwise = make(name, reduction="none")(preds, target, mask)
    assert elementwise.shape == preds.shape
    value = make(name, reduction=reduction)(preds, target, mask)
    total = elementwise.sum()
    expected = {"mean": total / mask.sum(), "sum": total, "none": elementwise}
    torch.testing.assert_close(value, expected[reduction])


@every_loss
def test_plain_values_and_state_make_the_same_loss_again(name, tmp_path):
    preds, target, mask = batch(dtype=torch.float32)
    balances = name == "LogLabelLoss" or issubclass(LOSSES.get(name, L1Loss), BalancedMSELoss)
    loss = make(name, **({"noise": "learned"} if balances else {}))
    loss.set_label_range((0.7, 10.0))
    for parameter in loss.noise_parameters():
        parameter.data.fill_(-0.3)
    torch.save((loss.init_args, loss.state_dict()), tmp_path / "saved.pt")
    arguments, state = torch.load(tmp_path / "saved.pt", weights_only=True)
    fresh = type(loss)(**arguments)
    fresh.load_state_dict(state)
    assert not fresh.needs_prior
    for again in (fresh, pickle.loads(pickle.dumps(loss))):
        assert again(preds, target, mask).item() == loss(preds, target, mask).item()
        assert torch.equal(again.readout(preds), loss.readout(preds))
        assert again.label_range == (0.7, 10.0)


@pytest.mark.parametrize("name", ["BNILoss", "GAILoss", "ReweightedLoss"])
def test_a_prior_can_be_a_file_of_its_own_or_of_the_histogram(name, tmp_path):
    loss = make(name)
    loss.prior.save(tmp_path / "prior.json")
    LONG_TAIL.save(tmp_path / "bins.json")
    for file in ("prior.json", "bins.json"):
        loaded = LOSSES[name](str(tmp_path / file))
        assert loaded(*batch()).item() == loss(*batch()).item()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("GAILoss", {"noise": noise, "init_noise_sigma": 0.3}) for noise in ("fixed", "learned")),
        ("ReweightedLoss", {}),
    ],
)
def test_prior_and_sigma_survive_half_precision_and_do_not_make_the_loss_float64(name, options):
    loss = make(name, **options)
    inputs = batch(dtype=torch.float32)
    expected = loss(*inputs)
    assert expected.dtype == torch.float32
    assert loss.half()(*inputs).item() == pytest.approx(expected.item(), rel=1e-6)
    sigma = loss.to(torch.bfloat16).noise_sigma
    assert sigma is None or sigma.item() == pytest.approx(0.3, rel=1e-6)


@pytest.mark.parametrize(("log_sigma", "sigma"), [(50.0, 1e3), (-50.0, 1e-3)])
def test_learned_sigma_is_held_within_its_bounds(log_sigma, sigma):
    loss = make("GAILoss", noise="learned")
    loss.noise_parameters()[0].data.fill_(log_sigma)
    assert loss.noise_sigma.item() == pytest.approx(sigma)


@with_prior
def test_labels_that_no_read_out_gives_are_warned_of_once_with_their_number(name, recwarn):
    histogram = Histogram([0.0, 1.0, 2.0, 3.0, 4.0], [5, 40, 30, 2])
    for label_range in (None, (0.0, 4.0), (0.5, 3.5)):  # bins half inside count as inside
        LOSSES[name](label_range=label_range).set_prior(histogram)
    assert not recwarn.list
    loss = LOSSES[name](label_range=(1.0, 3.0))
    loss.set_prior(histogram)
    loss(torch.tensor([3.5, 0.1]), torch.tensor([3.5, 0.1]))  # the loss itself never warns
    (only,) = recwarn.list
    assert "7 of the histogram's 77 labels lie outside label_range 1 to 3" in str(only.message)
    assert only.filename == __file__
