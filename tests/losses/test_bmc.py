"""Balanced MSE over the batch: its groups, memory and budget. Ranks are in test_gathering.py."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from depthbal.losses import BMCLoss, evidence, family, log_evidence
from depthbal.losses import batch as batch_module
from depthbal.losses.batch import batch_prior
from depthbal.losses.families import GaussianFamily
from depthbal.priors import GaussianMixture
from tests.losses.checks import drawn
from tests.reference import batch_monte_carlo, noise_log_evidence

every_method = pytest.mark.parametrize("method", ["auto", "exact", "grouped", "binned"])


def batch(count, levels=None, dtype=torch.float64, seed=0):
    preds, target, _ = drawn(count, dtype=dtype, seed=seed)
    return preds, (target * levels / 10).round() * 10 / levels if levels else target


def outcome(loss, preds, target, mask=None, twin=None):
    """Value, gradient by prediction, and gradient by log sigma: of a loss, or of its slow twin."""
    preds = preds.detach().clone().requires_grad_()
    log_sigma = loss.noise.log_sigma
    value = loss(preds, target, mask) if twin is None else twin(preds, target, log_sigma.exp())
    return value.detach(), *torch.autograd.grad(value, (preds, log_sigma))


@every_method
@pytest.mark.parametrize("levels", [None, 20])
@settings(max_examples=12, deadline=None)
@given(count=st.integers(2, 130), sigma=st.sampled_from([1e-3, 0.05, 0.8, 3.0, 100.0]))
def test_value_and_gradients_equal_the_slow_twin(method, levels, count, sigma):
    preds, target = batch(count, levels, seed=count)
    assume((target != target[0]).any())
    loss = BMCLoss(method=method, init_noise_sigma=sigma, noise="learned").double()
    expected = outcome(loss, preds, target, twin=batch_monte_carlo)
    # The relative tolerance is for bins with a sigma of 100, in which all targets share a few.
    rtol = 1e-5 if method == "binned" else 1e-9
    atol = rtol * max(1.0, sigma**2)
    torch.testing.assert_close(outcome(loss, preds, target), expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("method", ["auto", "exact", "grouped"])
@settings(max_examples=12, deadline=None)
@given(count=st.integers(2, 40), size=st.integers(1, 5), repeated=st.booleans())
def test_vectors_equal_the_slow_twin_also_where_batch_and_dimension_agree(
    method, count, size, repeated
):
    preds, target = (part.view(count, size) for part in batch(count * size, seed=count))
    if repeated:
        target = target[torch.arange(count) // 2]
    assume((target != target[0]).any())
    loss = BMCLoss(method=method, init_noise_sigma=0.7, noise="learned", event_dim=1).double()
    expected = outcome(loss, preds, target, twin=batch_monte_carlo)
    torch.testing.assert_close(outcome(loss, preds, target), expected)


def test_float64_is_exact_until_its_distinct_targets_are_too_many_and_then_within_1e_9(monkeypatch):
    preds, target = batch(4001)
    exact = BMCLoss(method="exact", reduction="none", scale="none")(preds, target)
    auto = BMCLoss(reduction="none", scale="none")
    torch.testing.assert_close(auto(preds, target), exact, rtol=1e-13, atol=1e-13)
    monkeypatch.setattr(batch_module, "MAX_PAIRS", 4001.0 * 4000)
    groups, _ = batch_prior(target, None, torch.tensor(1.0))
    assert len(groups.counts) < 4000
    assert (auto(preds, target) - exact).abs().max() < 1e-9


def test_noise_that_follows_the_prediction_bins_for_its_smallest_value_that_counts():
    target = torch.linspace(1, 9, 5000)
    mask = torch.arange(5000) > 0
    sigma = torch.full((5000,), 2.0)
    sigma[0], sigma[1] = 0.01, 0.5
    groups, extent = batch_prior(target, mask, sigma)
    assert (extent.sigma, extent.counted) == (0.5, 4999)
    assert len(groups.counts) == len(batch_prior(target[1:], None, sigma[1])[0].counts)


@pytest.mark.parametrize("shape", [(1,), (5,)])
def test_fewer_than_two_distinct_targets_warn_once_and_name_gai(shape):
    loss = BMCLoss()
    loss(torch.ones(0), torch.ones(0))  # of nothing there is nothing to say
    same = torch.full(shape, 2.0)
    preds = torch.full(shape, 3.0, requires_grad=True)
    with pytest.warns(UserWarning, match="GAILoss"):
        loss(preds, same).backward()
    assert (preds.grad == 0).all()
    still(loss, preds, same)


def still(function, *arguments):
    """Call a function that must not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return function(*arguments)


@pytest.mark.parametrize("method", ["auto", "grouped"])
def test_a_memory_adds_the_faded_targets_of_past_batches_to_the_prior(method):
    """memory=1 halves per step: before the third batch the first counts 1/4, the second 1/2."""
    options = {"label_range": (0.0, 10.0), "init_noise_sigma": 0.7, "method": method}
    loss = BMCLoss(memory=1, **options).double()
    batches = [batch(40, seed=seed) for seed in range(3)]
    for preds, target in batches[:2]:
        loss(preds.requires_grad_(), target)
    preds, target = batches[2]
    repeated = [(batches[0][1], 1), (batches[1][1], 2), (target, 4)]
    pool = torch.cat([values.repeat(times) for values, times in repeated])
    log_density = -((preds[:, None] - pool) ** 2) / (2 * 0.49)
    evidence = log_density.logsumexp(1) - math.log(len(pool))
    expected = ((preds - target) ** 2 + 2 * 0.49 * evidence).mean()
    # Merging into bins of 10 m / 1024 leaves an error of the third order.
    value = loss(preds.requires_grad_(), target)  # a training step
    assert value.item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.fixture
def remembering():
    """A loss with a memory of one batch, and that batch."""
    loss = BMCLoss(memory=5, label_range=(0.0, 10.0))
    preds, target = batch(100, dtype=torch.float32)
    loss(preds.requires_grad_(), target)
    return loss, preds, target


def test_a_memory_weighs_as_many_batches_as_it_is_told_and_balances_a_batch_of_one(remembering):
    loss, preds, target = remembering
    for _ in range(200):
        loss(preds, target)
    assert loss.memory.groups().counts.sum().item() == pytest.approx(500)
    one = torch.tensor([4.0], requires_grad=True)
    still(loss, one, torch.tensor([4.0])).backward()
    assert one.grad.item() != 0


def test_a_memory_learns_only_in_training_with_gradients():
    loss = BMCLoss(memory=3, label_range=(0.0, 10.0))
    preds, target = batch(100, dtype=torch.float32)
    loss(preds, target)
    with torch.no_grad():
        loss(preds.clone().requires_grad_(), target)
    loss.eval()
    loss(preds.requires_grad_(), target)
    assert loss.memory.is_empty
    loss.train()
    loss(preds, target)
    assert not loss.memory.is_empty


def test_a_memory_is_saved_restored_pickled_and_kept_in_double_precision(remembering):
    loss, preds, target = remembering
    fresh = BMCLoss(**loss.init_args)
    fresh.load_state_dict(copy.deepcopy(loss.half().state_dict()))
    preds = preds.detach()
    expected = loss(preds, target).item()
    assert fresh(preds, target).item() == expected
    assert pickle.loads(pickle.dumps(loss))(preds, target).item() == expected
    assert fresh.memory.moments.dtype == torch.float64
    few = preds[:20], target[:20]
    assert loss(*few).item() != BMCLoss()(*few).item()
    with pytest.raises(RuntimeError, match="saved with label_range"):
        BMCLoss(memory=5, label_range=(0.0, 100.0)).load_state_dict(loss.state_dict())


@pytest.mark.parametrize("count", [600, 6_000, 30_000])
@pytest.mark.parametrize(
    ("kind", "sigma", "shape"),
    [
        *(("huber", sigma, delta) for sigma, delta in ((1.0, 0.5), (0.3, 1.0), (0.5, 0.05))),
        ("laplace", 0.7, None),
        *(("student", sigma, df) for sigma, df in ((0.5, 2.0), (1.0, 30.0))),
    ],
)
def test_other_noise_over_bins_equals_the_sum_over_all_targets(count, kind, sigma, shape):
    preds, target = batch(count, dtype=torch.float32)
    options = {"huber_delta": shape} if kind == "huber" else {}
    options |= {"student_df": shape} if kind == "student" else {}
    options |= {"init_noise_sigma": sigma, "scale": "none", "reduction": "sum"}
    loss = BMCLoss(family=kind, **options)
    leaf = preds.requires_grad_()
    loss(leaf, target).backward()
    evidence = loss.family.log_evidence(
        preds.detach(), loss.prior_for(target, None, torch.tensor(sigma)), sigma
    )
    wide, labels = preds.detach()[:100].double().requires_grad_(), target.double()
    scale = torch.tensor(sigma).double()
    weights = torch.full_like(labels, 1 / count)
    exact = noise_log_evidence(wide, weights, labels, scale, kind, shape)
    torch.testing.assert_close(evidence[:100].double(), exact, rtol=0, atol=2e-5)
    data = noise_log_evidence(wide, torch.ones(1), labels[:100, None], scale, kind, shape)
    (exact - data).sum().backward()
    # Bins are merged within the tolerance of log E; slopes, in 1 / sigma, err by 20 times that,
    # for Laplace noise by the share of the labels that lie in a bin, next to it.
    error = (leaf.grad[:100] - wide.grad).abs() * sigma
    assert error.max() < (1e-3 if kind == "laplace" else 2.2e-4)


def test_few_labels_of_a_small_sigma_are_read_from_the_grid_not_from_all_pairs(monkeypatch):
    target = 10 * torch.rand(3000, generator=torch.Generator().manual_seed(3))
    preds = target + 0.05 * torch.randn(3000, generator=torch.Generator().manual_seed(4))
    preds[:2] = torch.tensor([-30.0, 300.0])  # beyond the grid
    pairs = []

    def counted(points, sigma, masses, *others):
        pairs.append(len(points) * len(masses.means))
        return evidence.exact_evidence(points, sigma, masses, *others)

    monkeypatch.setattr(family, "exact_evidence", counted)
    loss = BMCLoss(init_noise_sigma=0.02, noise="learned", scale="none", reduction="sum")
    leaf = preds.clone().requires_grad_()
    loss(leaf, target).backward()
    assert sum(pairs) < 3000**2 / 8
    wide, labels = preds.double().requires_grad_(), target.double()
    log_sigma = loss.noise.log_sigma.detach().double().requires_grad_()
    energies = (wide[:, None] - labels).square() / (2 * log_sigma.exp().square())
    (energies.diagonal() + torch.logsumexp(-energies, 1)).sum().backward()
    torch.testing.assert_close(0.02 * leaf.grad.double(), 0.02 * wide.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        loss.noise.log_sigma.grad.double(), log_sigma.grad, rtol=1e-4, atol=0
    )


# ---- bins ----

TOLERANCE = 1e-5


def uniform(count, generator):
    return torch.rand(count, generator=generator, dtype=torch.float64)


def worst(generator):
    """Two values in every cell in the shares that make the third moment largest."""
    width = GaussianFamily().cell_width(1.0, TOLERANCE)
    start = width * torch.arange(1200, dtype=torch.float64)
    return torch.cat([(start + 1e-4).repeat(79), (start + 0.0065).repeat(21)])


CASES = {
    "even": lambda g: 0.7 + 9.3 * uniform(20_000, g),
    "long tail": lambda g: 0.7 + 9.3 * uniform(20_000, g) ** 4,
    "8 bits": lambda g: (255 * uniform(20_000, g)).round() / 25.5,
    "few": lambda g: 9 * uniform(700, g),
    "a gap": lambda g: torch.cat([uniform(9000, g), 13 + uniform(9000, g)]),
    "one at 10 km": lambda g: torch.cat([uniform(9000, g), torch.full((1,), 1e4).double()]),
    "worst": worst,
    "worst, and one 6 m away": lambda g: torch.cat([worst(g), torch.full((1,), -6.0).double()]),
}


def mixture(groups):
    weights = groups.counts / groups.counts.sum()
    return GaussianMixture.unchecked(weights, groups.means, groups.variances)


def curves(preds, prior, sigma):
    """log E, sigma dlogE/dp and sigma dlogE/dsigma."""
    preds = preds.clone().requires_grad_()
    noise = torch.full_like(preds, sigma).requires_grad_()
    value = log_evidence(preds, prior, noise)
    value.sum().backward()
    return torch.stack([value.detach(), preds.grad * sigma, noise.grad * sigma])


@pytest.mark.parametrize("sigma", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("name", CASES)
def test_the_evidence_of_bins_stays_within_the_tolerance(name, sigma):
    """Absolute with a target within 6 sigma, relative to log E and its slopes up to 1,000."""
    generator = torch.Generator().manual_seed(0)
    target = CASES[name](generator)
    groups, _ = batch_prior(target, None, torch.tensor(sigma), method="binned")
    exact, _ = batch_prior(target, None, torch.tensor(sigma), method="grouped")
    assert groups.counts.sum() == len(target)
    assert len(groups.counts) <= len(exact.counts)
    low, high = target.min(), target.max()
    chosen = target[torch.randint(len(target), (60,), generator=generator)]
    near = chosen + 6 * sigma * (2 * uniform(60, generator) - 1)
    near = torch.cat([near, torch.stack([low - 6 * sigma, high + 6 * sigma])])
    error = curves(near, mixture(groups), sigma) - curves(near, mixture(exact), sigma)
    assert error.abs().max() < TOLERANCE

    outside = sigma * torch.tensor([10.0, 30.0, 100.0, 1000.0], dtype=torch.float64)
    far = torch.cat([high + outside, low - outside, torch.linspace(low, high, 30).double()])
    far = far[(far[:, None] - exact.means).abs().amin(1) <= 1000.1 * sigma]
    truth = curves(far, mixture(exact), sigma)
    error = (curves(far, mixture(groups), sigma) - truth).abs()
    distance = (far[:, None] - exact.means).abs().amin(1) / sigma
    size = torch.stack([distance**2 / 2, distance, distance**2]).clamp(min=1)
    assert (error / size).max() < TOLERANCE


@pytest.mark.parametrize("family", ["gaussian", "laplace", "huber", "student"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_an_empty_memory_and_an_empty_mask_leave_a_learned_sigma_alone(family, reduction):
    options = {"noise": "learned", "family": family, "reduction": reduction}
    loss = BMCLoss(memory=5, label_range=(0.0, 10.0), **options)
    preds, target = batch(10, dtype=torch.float32)
    value = loss(preds.requires_grad_(), target, torch.zeros(10).bool()).sum()
    value.backward()
    assert (value.item(), loss.noise.log_sigma.grad.item()) == (0, 0)
    assert (preds.grad == 0).all()


def test_what_takes_long_is_said_once_and_one_far_label_does_not():
    target = 1 + 9 * torch.rand(50_000)
    far = torch.cat([target, torch.tensor([1e4])])
    still(BMCLoss(init_noise_sigma=0.3).prior_for, far, None, torch.tensor(0.3))
    loss = BMCLoss()  # the sigma of metres for labels in micrometres
    with pytest.warns(UserWarning, match="near the error of the network in label units"):
        loss.prior_for(1e6 * target, None, torch.tensor(1.0))
    # seconds: a table of a sigma that follows the prediction, below a hundredth of the range
    with pytest.warns(UserWarning, match="use one sigma"):
        BMCLoss(noise="depth").prior_for(target, None, torch.full_like(target, 0.03))
    still(BMCLoss(noise="depth").prior_for, target, None, torch.full_like(target, 0.3))


@pytest.mark.parametrize("world", ["log_uniform", "exp_uniform"])
@pytest.mark.parametrize("method", ["exact", "grouped", "binned"])
def test_another_world_weighs_targets_by_its_inverse_density(world, method):
    (preds, target, mask), sigma = drawn(700), 0.8
    options = {"init_noise_sigma": sigma, "scale": "none", "reduction": "none"}
    loss = BMCLoss(method=method, relative_to=world, **options)
    weights = target if world == "log_uniform" else torch.exp(-target)
    noise = torch.exp(-((preds[:, None] - target) ** 2) / (2 * sigma**2))
    evidence = (noise * weights).sum(1) / weights.sum()
    expected = (preds - target) ** 2 / (2 * sigma**2) + evidence.log()
    torch.testing.assert_close(loss(preds, target), expected, rtol=0, atol=1e-4)
    hidden = torch.where(mask, target, -5.0)  # what is masked needs no logarithm
    alone = BMCLoss(method=method, relative_to=world, **options)(preds[mask], target[mask])
    torch.testing.assert_close(loss(preds, hidden, mask)[mask], alone)
