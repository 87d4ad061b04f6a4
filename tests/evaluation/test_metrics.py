import json
import pickle

import numpy as np
import pytest
import torch

from depthbal.errors import DataError
from depthbal.evaluation import (
    DEPTH_METRICS,
    BinnedDepthMetrics,
    BinnedMetrics,
    DepthBins,
    LabelBins,
    binned_sums,
)
from tests.reference import plain_evaluation

BINS = DepthBins.nyud2()


def batch(seed=0, images=4, shape=(17, 23), dtype=torch.float32):
    """Skewed depths with holes, empty bins and a masked share; predictions partly below zero."""
    generator = torch.Generator().manual_seed(seed)
    size = (images, 1, *shape)
    target = torch.exp(torch.randn(size, generator=generator) * 0.6 + 0.9).clamp(max=11.0)
    target[torch.rand(size, generator=generator) < 0.1] = 0.0
    preds = target * (1 + 0.3 * torch.randn(size, generator=generator))
    preds[torch.rand(size, generator=generator) < 0.02] = -0.4
    mask = (target >= 0.7) & (torch.rand(size, generator=generator) < 0.8)
    mask[0] = False
    return preds.to(dtype), target, mask


def assert_equal(found, expected, keys=None):
    """Compare two dictionaries of numbers to 1e-9."""
    for key in keys or expected:
        if expected[key] is None:
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-9), key


def assert_matches_plain(result, preds, target, mask):
    plain = plain_evaluation(preds.float().numpy(), target.numpy(), mask.numpy(), list(BINS.shots))
    for group in ("overall", "many", "medium", "few"):
        assert_equal(result[group], plain[group])
        assert_equal(result["per_image_mean"][group], plain["per_image_mean"][group], DEPTH_METRICS)
        assert_equal(result["per_bin_mean"][group], plain["per_bin_mean"][group], DEPTH_METRICS)
    assert [row["bin"] for row in result["bins"]] == list(plain["bins"])
    for row in result["bins"]:
        assert_equal(row, plain["bins"][row["bin"]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(17, 23), (1, 1), (64, 3)])
def test_all_numbers_equal_plain_loops(dtype, shape):
    preds, target, mask = batch(shape=shape, dtype=dtype)
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds, target, mask)
    assert_matches_plain(metric.compute(), preds, target, mask)


def test_images_larger_than_a_chunk_equal_plain_loops():
    preds, target, mask = batch(images=3, shape=(300, 250))  # 75,000 pixels: one image per chunk
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds, target, mask)
    assert_matches_plain(metric.compute(), preds, target, mask)


def test_updates_by_batches_equal_one_batch():
    preds, target, mask = batch(images=5)
    whole, parts = BinnedDepthMetrics(BINS), BinnedDepthMetrics(BINS)
    whole.update(preds, target, mask)
    for i, j in ((0, 1), (1, 3), (3, 5)):
        parts.update(preds[i:j], target[i:j], mask[i:j])
    a, b = whole.compute(), parts.compute()
    for group in ("overall", "many", "medium", "few"):
        assert_equal(a[group], b[group])
        assert_equal(a["per_image_mean"][group], b["per_image_mean"][group])
        assert_equal(a["per_bin_mean"][group], b["per_bin_mean"][group])
    for row, other in zip(a["bins"], b["bins"], strict=True):
        assert_equal(row, other, ("count", "images", *DEPTH_METRICS))


def test_known_errors_give_known_metrics():
    target = torch.tensor([[2.0, 2.0, 4.0, 4.0]])
    preds = torch.tensor([[3.0, 2.0, 4.0, 8.0]])
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds, target)
    overall = metric.compute()["overall"]
    assert overall["mse"] == pytest.approx(17 / 4)
    assert overall["rmse"] == pytest.approx((17 / 4) ** 0.5)
    assert overall["mae"] == overall["bias"] == pytest.approx(5 / 4)
    assert overall["abs_rel"] == pytest.approx((0.5 + 1) / 4)
    assert overall["log10"] == pytest.approx((np.log10(1.5) + np.log10(2)) / 4)
    assert [overall[f"delta{k}"] for k in (1, 2, 3)] == [0.5, 0.75, 0.75]
    d = np.log([1.5, 1, 1, 2])
    assert overall["silog"] == pytest.approx(100 * d.std())


def test_a_constant_factor_leaves_silog_zero():
    target = torch.rand(2, 1, 9, 7, dtype=torch.float64) * 8 + 1
    metric = BinnedDepthMetrics(BINS)
    metric.update(target * 1.7, target)
    assert metric.compute()["overall"]["silog"] == pytest.approx(0, abs=1e-5)


def test_predictions_below_zero_are_clamped_in_logarithms_only():
    metric = BinnedDepthMetrics(BINS)
    metric.update(torch.tensor([[-1.0]]), torch.tensor([[1.0]]))
    overall = metric.compute()["overall"]
    assert overall["log10"] == pytest.approx(3.0)
    assert overall["abs_rel"] == overall["mae"] == 2.0
    assert overall["delta3"] == 0.0


def test_an_empty_group_is_a_labelled_gap():
    metric = BinnedDepthMetrics(BINS)
    metric.update(torch.full((1, 4), 2.0), torch.full((1, 4), 2.0))
    result = metric.compute()
    assert result["few"] == {**dict.fromkeys(DEPTH_METRICS), "count": 0, "images": 0}
    assert result["per_bin_mean"]["few"] == {**dict.fromkeys(DEPTH_METRICS), "count": 0, "bins": 0}
    row = result["bins"][99 - 7]
    assert (row["bin"], row["count"], row["images"], row["rmse"]) == (99, 0, 0, None)
    json.dumps(result, allow_nan=False)


def test_nothing_at_all_is_a_gap_everywhere():
    metric = BinnedDepthMetrics(BINS)
    metric.update(torch.ones(0, 1, 4, 4), torch.ones(0, 1, 4, 4))
    metric.update(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 4, 4), torch.zeros(2, 1, 4, 4).bool())
    result = metric.compute()
    assert result["overall"]["count"] == 0
    assert result["overall"]["rmse"] is None
    json.dumps(result, allow_nan=False)


def test_rows_name_their_edges_in_metres():
    metric = BinnedDepthMetrics(BINS)
    metric.update(torch.full((2, 3), 0.75), torch.full((2, 3), 0.75))
    row = metric.compute()["bins"][0]
    assert (row["bin"], row["from_m"], row["to_m"], row["shot"]) == (7, 0.7, 0.8, "medium")
    assert (row["count"], row["images"]) == (6, 2)


def test_integer_ages_are_scored_per_label():
    generator = torch.Generator().manual_seed(3)
    counts = np.r_[np.full(40, 150), np.full(40, 50), np.full(41, 5)]
    ages = torch.randint(0, 100, (500,), generator=generator)
    preds = ages + torch.randn(500, generator=generator) * 9
    metric = BinnedMetrics(LabelBins.from_counts(np.arange(122), counts, 100, 20))
    metric.update(preds[:200], ages[:200])
    metric.update(preds[200:], ages[200:])
    result = metric.compute()
    error = (preds.double() - ages.double()).abs().numpy()
    labels = ages.numpy()
    assert result["overall"]["mae"] == pytest.approx(error.mean(), rel=1e-12)
    assert result["few"]["mse"] == pytest.approx((error[labels >= 80] ** 2).mean(), rel=1e-12)
    per_age = [error[labels == age].mean() for age in np.unique(labels)]
    assert result["per_bin_mean"]["overall"]["mae"] == pytest.approx(np.mean(per_age), rel=1e-12)
    assert result["overall"]["images"] == result["overall"]["count"] == 500
    assert (result["bins"][5]["from"], result["bins"][5]["to"]) == (5.0, 6.0)
    assert "abs_rel" not in result["overall"]


def test_the_state_does_not_grow():
    metric = BinnedDepthMetrics(BINS)
    sizes = set()
    for seed in range(4):
        metric.update(*batch(seed, images=1 + seed))
        sizes.add(sum(state.numel() for state in metric.metric_state.values()))
    assert len(sizes) == 1
    assert {state.dtype for state in metric.metric_state.values()} == {torch.float64}


def test_a_pickled_metric_goes_on_counting():
    preds, target, mask = batch()
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds[:2], target[:2], mask[:2])
    copy = pickle.loads(pickle.dumps(metric))
    copy.update(preds[2:], target[2:], mask[2:])
    assert_matches_plain(copy.compute(), preds, target, mask)


def test_reset_forgets_and_lower_precision_of_the_model_changes_nothing():
    preds, target, mask = batch()
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds * 2, target, mask)
    metric.reset()
    metric.half()  # what a trainer does to every module it holds
    metric.update(preds, target, mask)
    assert_matches_plain(metric.compute(), preds, target, mask)


def test_sums_leave_out_what_the_mask_leaves_out():
    preds, target, mask = batch()
    inside = binned_sums(preds, target, mask, BINS)
    outside = binned_sums(preds, target, ~mask, BINS)
    everything = binned_sums(preds, target, None, BINS)
    torch.testing.assert_close(inside + outside, everything, rtol=1e-12, atol=1e-12)
    assert inside[0].eq(0).all()


def test_differing_shapes_are_named_with_the_cure():
    with pytest.raises(DataError, match=r"preds \(2, 1, 4, 4\) and target \(2, 1, 8, 8\).*resize"):
        BinnedDepthMetrics(BINS).update(torch.ones(2, 1, 4, 4), torch.ones(2, 1, 8, 8))
    target = torch.ones(2, 1, 8, 8)
    with pytest.raises(DataError, match=r"mask \(2, 8, 8\) and target \(2, 1, 8, 8\)"):
        BinnedDepthMetrics(BINS).update(target, target, torch.ones(2, 8, 8).bool())


def test_values_that_are_not_finite_are_counted_in_the_error():
    preds, target, mask = batch()
    preds = preds.clone()
    places = mask.nonzero()[:3]
    for place, bad in zip(places, (float("nan"), float("inf"), -float("inf")), strict=True):
        preds[tuple(place)] = bad
    with pytest.raises(DataError, match=f"preds hold 3 values.* of {int(mask.sum())} under"):
        BinnedDepthMetrics(BINS).update(preds, target, mask)
    with pytest.raises(DataError, match="target hold 3 values"):
        BinnedDepthMetrics(BINS).update(target, preds, mask)


def test_values_outside_the_mask_may_be_anything():
    preds, target, mask = batch()
    expected = binned_sums(preds, target, mask, BINS)
    found = binned_sums(
        preds.masked_fill(~mask, float("nan")), target.masked_fill(~mask, -5.0), mask, BINS
    )
    assert torch.equal(found, expected)


def test_a_mask_of_floats_is_refused():
    with pytest.raises(DataError, match="must be boolean"):
        BinnedDepthMetrics(BINS).update(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_numbers():
    preds, target, mask = batch()
    metric = BinnedDepthMetrics(BINS).cuda()
    metric.update(preds.cuda(), target.cuda(), mask.cuda())
    assert_matches_plain(metric.compute(), preds, target, mask)


def test_predictions_that_carry_gradients_are_scored_without_them():
    preds, target, mask = batch()
    metric = BinnedDepthMetrics(BINS)
    metric.update(preds.requires_grad_(), target, mask)
    assert not metric.sums.requires_grad
    assert_matches_plain(metric.compute(), preds.detach(), target, mask)
