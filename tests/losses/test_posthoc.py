"""Balancing a trained regressor's predictions."""

import numpy as np
import pytest
import torch

from depthbal.losses import GAILoss, balance_predictions, posthoc, sigma_from_rmse
from depthbal.losses.posthoc import BalanceMap
from depthbal.priors import GaussianMixture, Histogram
from tests.losses.checks import EDGES, LONG_TAIL, RANGE, both_priors, minimise
from tests.reference import training_posterior_mean


def random_prior(seed: int, kind: str):
    """Return a mixture, and its weights, means and variances as lists."""
    generator = torch.Generator().manual_seed(seed)
    weights, means, spread = torch.rand(3, 7, generator=generator, dtype=torch.float64)
    variances = torch.zeros_like(spread) if kind == "points" else spread**2
    prior = GaussianMixture(weights + 0.01, 10 * means, variances)
    return prior, [part.tolist() for part in (prior.weights, prior.means, prior.variances)]


@pytest.mark.parametrize("kind", ["points", "normals"])
@pytest.mark.parametrize("sigma", [0.05, 0.5, 2.0, 20.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_training_mean_of_the_balanced_prediction_is_the_prediction(kind, sigma, seed):
    prior, parts = random_prior(seed, kind)
    low, high = prior.means.min() + 1e-3, prior.means.max() - 1e-3
    preds = torch.linspace(float(low), float(high), 301, dtype=torch.float64)
    balanced = balance_predictions(preds, prior, sigma)
    again = [training_posterior_mean(p, *parts, sigma) for p in balanced.tolist()]
    np.testing.assert_allclose(again, preds.numpy(), atol=1e-6)
    assert (balanced.diff() > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_normal_prior_pushes_away_from_its_mean_by_a_factor(dtype):
    """N(mu, v): m(p) = (v p + sigma^2 mu) / (v + sigma^2), so p - mu = (1 + sigma^2/v)(x - mu)."""
    preds = torch.tensor([[-50.0, 0.0], [2.5, 3.0], [4.0, 900.0]], dtype=dtype)
    balanced = balance_predictions(preds, GaussianMixture([1.0], [3.0], [2.0]), 1.5)
    assert balanced.dtype == dtype
    torch.testing.assert_close(balanced, 3 + (1 + 1.5**2 / 2) * (preds - 3))


@pytest.mark.parametrize("gap", [1.0, 100.0])
def test_a_step_of_the_training_mean_in_the_middle_of_the_table_is_resolved(gap):
    """Two far labels make m a step: everything between them maps to the point half-way."""
    preds, sigma = torch.tensor([0.25, 0.5, 0.9], dtype=torch.float64) * gap, gap / 30
    prior = GaussianMixture([0.5, 0.5], [0.0, gap], [0.0, 0.0])
    expected = gap / 2 + sigma**2 / gap * np.log(preds / (gap - preds))
    balanced = balance_predictions(preds, prior, sigma)
    torch.testing.assert_close(balanced, expected, rtol=0, atol=1e-6 * gap)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 3.0])
def test_the_optimum_that_training_finds_is_the_balanced_mean(sigma):
    """Free predictions, one per input, trained with GAI on samples end where the inputs' mean
    labels, which is what training with MSE finds, are sent."""
    generator = torch.Generator().manual_seed(0)
    prior = GaussianMixture([0.8, 0.15, 0.05], [2.0, 5.0, 9.0], [0.6, 1.0, 0.3])
    inputs = torch.randint(6, (3000,), generator=generator)
    noise = torch.randn(3000, generator=generator, dtype=torch.float64)
    target = 1 + 1.3 * inputs + 0.5 * noise
    means = torch.stack([target[inputs == i].mean() for i in range(6)])
    preds = means.clone().requires_grad_()
    loss = GAILoss(prior, init_noise_sigma=sigma)
    minimise(preds, lambda: loss(preds[inputs], target))
    assert (preds - means).abs().max() > 0.1
    balanced = balance_predictions(means, prior, sigma)
    torch.testing.assert_close(balanced, preds.detach(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("sigma", [1e-3, 0.3, 1.0, 10.0])
def test_beyond_the_reachable_labels_it_gives_the_finite_limit(sigma):
    first, last = LONG_TAIL.centers[[0, -1]]
    preds = torch.tensor([-1e30, -3.0, first, 5.0, last, 11.0, 1e30], dtype=torch.float64)
    read = balance_predictions(preds, LONG_TAIL, sigma, RANGE)
    assert read[:3].tolist() == [0.7] * 3
    assert read[4:].tolist() == [10.0] * 3
    assert 0.7 < read[3].item() < 10.0
    located = balance_predictions(preds, LONG_TAIL, sigma)
    assert torch.isfinite(located).all()
    assert located[0] == located[2]
    assert located[4] == located[6]
    parts = (LONG_TAIL.counts.tolist(), LONG_TAIL.centers.tolist(), [0.0] * 93)
    reached = training_posterior_mean(located[4].item(), *parts, sigma)
    assert reached == pytest.approx(last, abs=2e-5)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 1, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_any_shape_and_precision_in_inference_mode_too(shape, dtype):
    preds = torch.rand(shape).mul(9).to(dtype).requires_grad_()
    expected = balance_predictions(preds, LONG_TAIL, 1.0, RANGE)
    assert expected.shape == preds.shape
    assert expected.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert not expected.requires_grad
    with torch.inference_mode():
        again = balance_predictions(preds.detach() * 1, LONG_TAIL, torch.tensor(1.0), RANGE)
    assert torch.equal(again, expected)


@both_priors
@pytest.mark.parametrize("label_range", [None, RANGE])
def test_a_map_is_monotone_in_its_range_and_the_same_whatever_came_before(
    prior, label_range, monkeypatch
):
    batches = [torch.tensor(batch) for batch in ([3.0, 4.0], [2.0, 9.94], [-40.0, 0.8], [60.0])]
    preds = torch.cat(batches)
    whole, located = (balance_predictions(preds, prior, 1.0, one) for one in (label_range, None))
    forward, backward = BalanceMap(prior, 1.0, label_range), BalanceMap(prior, 1.0, label_range)
    monkeypatch.setattr(posthoc, "exact_evidence", lambda *_: pytest.fail("the table is there"))
    assert torch.equal(forward.locations(preds), located)  # those of the whole line
    first = [forward(batch) for batch in batches]
    second = [backward(batch) for batch in reversed(batches)][::-1]
    assert torch.equal(torch.cat(first), whole)
    assert torch.equal(torch.cat(second), whole)
    balanced = forward(torch.linspace(-5, 15, 2001, dtype=torch.float64))
    assert torch.isfinite(balanced).all()
    assert (balanced.diff() >= 0).all()
    assert label_range is None or (balanced.min() >= 0.7 and balanced.max() <= 10.0)


def posterior_variance(sigma: float, labels: np.ndarray, weights: np.ndarray) -> float:
    """E Var[y | x] of labels with x ~ N(y, sigma^2), by sums over labels and a grid of x."""
    x = np.linspace(labels.min() - 9 * sigma, labels.max() + 9 * sigma, 4001)
    joint = weights * np.exp(-(((x[:, None] - labels) / sigma) ** 2) / 2)
    mean = joint @ labels / joint.sum(1)
    squares = (joint * (labels - mean[:, None]) ** 2).sum()
    return squares * (x[1] - x[0]) / (sigma * np.sqrt(2 * np.pi))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0, 3.0, 20.0])
def test_sigma_from_the_rmse_of_a_perfect_plain_model_is_that_of_its_noise(sigma):
    """The RMSE itself is 9 to 55 % too small on depths of rooms."""
    inside = (np.arange(20) + 0.5) / 20
    labels = (EDGES[:-1, None] + np.diff(EDGES)[:, None] * inside).ravel()
    weights = np.repeat(LONG_TAIL.counts / LONG_TAIL.total / 20, 20)
    rmse = posterior_variance(sigma, labels, weights) ** 0.5
    assert sigma_from_rmse(rmse, LONG_TAIL) == pytest.approx(sigma, rel=1e-4)
    masses = GaussianMixture(weights, labels, np.zeros_like(labels))
    assert sigma_from_rmse(rmse, masses) == pytest.approx(sigma, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_sigma_from_rmse_follows_the_unit_and_is_closed_for_a_normal_prior(scale):
    """Var[y | x] = v s^2 / (v + s^2) whatever x."""
    prior = GaussianMixture([1.0], [3.0 * scale], [2.0 * scale**2])
    found = sigma_from_rmse((2 * 0.25 / 2.25) ** 0.5 * scale, prior)
    assert found == pytest.approx(0.5 * scale, rel=1e-9)


def test_a_map_for_another_world_is_that_of_its_kernel():
    histogram = Histogram(np.linspace(0.7, 10, 94), np.exp(-np.linspace(0.7, 10, 93)))
    balance = BalanceMap(histogram, 0.8, RANGE).relative_to("log_uniform")
    preds = torch.linspace(1.0, 6.0, 9, dtype=torch.float64)
    told = BalanceMap(histogram.relative_to("log_uniform"), 0.8, RANGE)
    assert torch.equal(balance(preds), told(preds))
    assert (balance(preds) < BalanceMap(histogram, 0.8, RANGE)(preds)).all()
    assert balance.describe()["relative_to"] == "log_uniform"
    for chosen in (balance, BalanceMap.from_dict(balance.to_dict())):
        with pytest.raises(ValueError, match="has its own; choose another with depthbal balance"):
            chosen.relative_to("uniform")  # of its kernel, which would change nothing
