"""Cross-entropy over bins with two-hot labels, and its read-out for any world."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional

from depthbal.losses import BinsLoss, NonFiniteError, bins
from depthbal.priors import Histogram
from tests.losses.checks import LONG_TAIL, RANGE, kept_numbers
from tests.reference import read_bins, two_hot, two_hot_entropy

EDGES = np.linspace(0.7, 10.0, 32)
GAPS = Histogram(EDGES, np.where(np.arange(31) % 7 == 3, 0, np.exp(-EDGES[:-1])))
spacings = pytest.mark.parametrize("spacing", ["uniform", "log", "quantile"])


def batch(bins=7, shape=(3, 1, 5, 9), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    target = 0.3 + 10 * torch.rand(shape, generator=generator, dtype=torch.float64)
    logits = 3 * torch.randn(shape[0], bins, *shape[2:], generator=generator, dtype=torch.float64)
    mask = torch.rand(shape, generator=generator) < 0.6
    return logits.to(dtype), target.to(dtype), mask


def rows(logits, mask):
    """The logits (n, K) of the labels that count."""
    return logits.movedim(1, -1)[mask.squeeze(1) if mask.ndim > 1 else mask]


def loss_of(spacing="uniform", n_bins=7, **options):
    return BinsLoss(GAPS, n_bins=n_bins, spacing=spacing, label_range=RANGE, **options)


@spacings
@pytest.mark.parametrize("shape", [(23,), (3, 1, 5, 9), (2, 1, 11)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_values_and_gradients_equal_one_label_at_a_time(
    monkeypatch, spacing, shape, layout, dtype, tolerance
):
    monkeypatch.setattr(bins, "CHUNK_NUMBERS", 7 * 4)  # chunks that divide nothing
    logits, target, mask = batch(shape=shape)
    logits = logits.to(dtype)
    if len(shape) == 4:
        logits = logits.contiguous(memory_format=layout)
    loss, counted = loss_of(spacing), rows(logits, mask).double().requires_grad_()
    expected = two_hot_entropy(counted, target[mask].tolist(), loss.centers.tolist())
    expected.backward()
    logits.movedim(1, -1)[~(mask.squeeze(1) if mask.ndim > 1 else mask)] = torch.nan
    logits.requires_grad_()
    hidden = torch.where(mask, target, torch.nan)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = loss(logits, hidden, mask)
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx(expected.item(), rel=max(tolerance / 100, 1e-12), abs=1e-6)
    found = rows(logits.grad, mask).double()
    torch.testing.assert_close(found, counted.grad, rtol=tolerance, atol=tolerance / 100)
    assert (rows(logits.grad, ~mask) == 0).all()


def test_enlarging_in_the_loss_is_enlarging_before_it_but_keeps_no_enlarged_logits():
    logits, _, _ = batch(shape=(3, 1, 4, 5))
    _, target, mask = batch(shape=(3, 1, 9, 11))
    loss = loss_of()
    small, large = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    enlarged = functional.interpolate(large, (9, 11), mode="bilinear", align_corners=True)
    expected = loss(enlarged, target, mask)
    kept = kept_numbers(lambda: loss(small, target, mask, enlarge=True))
    value = loss(small, target, mask, enlarge=True)
    expected.backward()
    value.backward()
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(small.grad, large.grad, rtol=1e-10, atol=1e-14)
    assert max(kept) <= max(small.numel(), target.numel())


@spacings
def test_the_prior_is_the_mean_two_hot_target_of_the_training_labels(spacing):
    loss = loss_of(spacing)
    inside = (np.arange(400) + 0.5) / 400
    expected = np.zeros(7)
    for low, high, count in zip(GAPS.edges[:-1], GAPS.edges[1:], GAPS.counts, strict=True):
        for label in low + (high - low) * inside:
            expected += count / 400 * np.array(two_hot(label, loss.centers.tolist()))
    shares = loss.initial_logits.exp().numpy()
    np.testing.assert_allclose(shares, expected / GAPS.total, rtol=1e-4)
    assert shares @ loss.centers.numpy() == pytest.approx(GAPS.mean, rel=1e-9)


def world_masses(name, centers):
    labels = RANGE[0] + 9.3 * (np.arange(200_000) + 0.5) / 200_000
    density = {"uniform": labels**0, "log_uniform": 1 / labels, "exp_uniform": np.exp(labels)}[name]
    right = np.clip(np.searchsorted(centers, labels, side="right"), 1, len(centers) - 1)
    part = (labels - centers[right - 1]) / (centers[right] - centers[right - 1])
    masses = np.bincount(right, density * part, len(centers))
    masses += np.bincount(right - 1, density * (1 - part), len(centers))
    return masses / masses.sum()


@spacings
@pytest.mark.parametrize("world", ["uniform", "log_uniform", "exp_uniform"])
@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("shape", [(6,), (2, 1, 3, 4)])
def test_the_read_out_equals_one_label_at_a_time(monkeypatch, spacing, world, tau, shape):
    monkeypatch.setattr(bins, "CHUNK_NUMBERS", 7 * 5)
    logits, target, _ = batch(shape=shape)
    loss = loss_of(spacing).set_world(tau, world)
    prior, centers = loss.initial_logits.exp().tolist(), loss.centers.numpy()
    masses = world_masses(world, centers).tolist()
    mean, (low,) = loss.readout(logits), loss.quantiles(logits, 0.2)
    assert mean.shape == low.shape == target.shape
    every = torch.ones_like(target, dtype=torch.bool)
    for row, found, lower in zip(rows(logits, every), mean.flatten(), low.flatten(), strict=True):
        expected = read_bins(row.tolist(), centers.tolist(), prior, masses, tau, 0.2)
        assert (found.item(), lower.item()) == pytest.approx(expected, abs=1e-4)


def test_a_posterior_of_the_balanced_world_is_found_through_that_of_the_training():
    loss = loss_of("log", n_bins=40)
    centers, prior = loss.centers, loss.initial_logits.exp()
    balanced = torch.exp(-0.5 * ((centers - 6.0) / 0.8) ** 2)  # per bin
    widths = torch.from_numpy(world_masses("uniform", centers.numpy()))
    balanced = balanced * widths / (balanced * widths).sum()
    in_training = (balanced * prior / widths).log()[None]
    assert loss.readout(in_training).item() == pytest.approx(float(balanced @ centers), abs=1e-4)
    lower, upper = loss.interval(in_training)
    assert lower.item() == pytest.approx(6.0 - 0.8, abs=0.12)
    assert upper.item() == pytest.approx(6.0 + 0.8, abs=0.12)
    found = loss.set_world(tau=0.0).readout(in_training)
    assert found.item() == pytest.approx(6.0 - 0.8**2, abs=0.05)  # labels as rare as e^-y


@spacings
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_bins_without_training_labels_are_never_predicted(spacing, unit):
    edges = unit * np.linspace(0.7, 10.0, 94)
    counts = 1e6 * np.exp(-edges[:-1] / unit)
    counts[30:50] = counts[80:] = 0  # 3.7 to 5.7 and beyond 8.7
    loss = BinsLoss(Histogram(edges, counts), n_bins=128, spacing=spacing)
    (first, last), centers = edges[[30, 50]], loss.centers.numpy()
    near = np.diff(centers).max()
    empty = (centers > first + near) & (centers < last - near)
    assert spacing == "quantile" or empty.any()
    ratio, seen = loss.log_ratio()
    assert not seen.numpy()[empty].any()
    assert ratio.max() < 20
    for quantile in torch.linspace(0.01, 0.99, 25).tolist():
        (found,) = loss.quantiles(torch.zeros(1, 128), quantile)
        assert not first + near < found.item() < last - near


def test_a_world_may_be_a_file(tmp_path):
    logits, _, _ = batch(shape=(6,))
    GAPS.save(tmp_path / "world.json")
    plain = loss_of().set_world(tau=0.0).readout(logits)
    again = loss_of().set_world(1.0, tmp_path / "world.json").readout(logits)  # the training's own
    torch.testing.assert_close(again, plain)


def test_parts_of_maps_have_the_size_of_the_logits():
    logits, _, _ = batch(dtype=torch.bfloat16)
    loss = loss_of()
    parts = loss.decode(logits)
    assert parts.shape == (3, len(bins.PARTS), 5, 9)
    assert parts.dtype == torch.float32
    found = dict(zip(bins.PARTS, parts.split(1, 1), strict=True))
    torch.testing.assert_close(found["mean"], loss.readout(logits))
    torch.testing.assert_close(found["median"], loss.quantiles(logits, 0.5)[0])
    torch.testing.assert_close(found["raw"], loss.set_world(tau=0.0).readout(logits))
    assert (found["low"] <= found["median"]).all()
    assert (found["median"] <= found["high"]).all()


def test_an_empty_mask_gives_0_with_a_gradient_path():
    logits, target, mask = batch()
    logits.requires_grad_()
    value = loss_of()(logits, target, torch.zeros_like(mask))
    value.backward()
    assert value.item() == 0
    assert (logits.grad == 0).all()


def test_huge_logits_are_no_overflow():
    logits = torch.tensor([[0.0, 3e4, -3e4], [3e38, 0.0, 0.0]])
    loss = BinsLoss(Histogram([0.0, 2.0], [1]), n_bins=3)
    assert loss(logits, torch.tensor([1.0, 0.0])).item() == 0
    assert loss.readout(logits).tolist() == [1.0, 0.0]


def test_it_is_restored_from_the_state_dict_and_pickled(tmp_path):
    logits, target, mask = batch()
    loss = loss_of("quantile", tau=0.5, relative_to="log_uniform")
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    fresh = BinsLoss(**loss.init_args)
    assert fresh.needs_prior
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for other in (fresh, pickle.loads(pickle.dumps(loss))):
        assert other(logits, target, mask).item() == loss(logits, target, mask).item()
        assert torch.equal(other.readout(logits), loss.readout(logits))


def test_counted_nan_is_an_error_that_says_how_many():
    logits, target = torch.zeros(4, 7), torch.ones(4)
    logits[1, 2], target[2] = math.nan, math.inf
    with pytest.raises(NonFiniteError, match="2 NaN"):
        loss_of()(logits, target)


def test_training_a_table_of_logits_learns_the_conditional_of_every_input():
    generator = torch.Generator().manual_seed(0)
    labels = torch.stack([2 + torch.rand(4000, generator=generator), 4 + 4 * torch.rand(4000)])
    histogram = Histogram(LONG_TAIL.edges).update(labels)
    loss = BinsLoss(histogram, n_bins=94, label_range=RANGE, tau=0.0)
    table = torch.zeros(2, 94, requires_grad=True)
    solver = torch.optim.Adam([table], lr=0.3)
    for _ in range(150):
        solver.zero_grad()
        loss(table.repeat_interleave(4000, 0), labels.flatten()).backward()
        solver.step()
    torch.testing.assert_close(loss.readout(table), labels.mean(1), atol=0.02, rtol=0)
    quartiles = torch.stack(loss.quantiles(table, 0.25, 0.75), 1)
    expected = torch.stack([labels.quantile(q, 1) for q in (0.25, 0.75)], 1)
    torch.testing.assert_close(quartiles, expected, atol=0.08, rtol=0)
