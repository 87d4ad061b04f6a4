"""Protocols: crops, clamped predictions, means over images, alignment to the truth."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DepthBins, eigen_crop
from depthbal.evaluation.alignment import align
from depthbal.evaluation.protocols import DepthProtocol
from tests.reference import plain_align, plain_depth_scores


@pytest.fixture(scope="module")
def rule():
    return DepthProtocol("eigen", SimpleNamespace(bins=DepthBins.nyud2))


def eigen_scores(rule, readouts=("raw",)):
    return rule.scores(readouts, "raw", {})


def test_numbers_are_means_over_images_of_clamped_predictions_in_the_crop(rule):
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 1, 48, 64, generator=generator) * 11 - 0.5
    preds = target + torch.randn(target.shape, generator=generator) * 3
    mask = rule.counts(target)
    scores = eigen_scores(rule, ("raw", "mean"))
    for part in (slice(0, 2), slice(2, 3)):
        scores.update(
            dict.fromkeys(("raw", "mean"), rule.scored(preds[part])), target[part], mask[part]
        )
    result = scores.compute()
    expected = []
    for p, t in zip(preds.numpy(), target.numpy(), strict=True):
        p, t = p[0, 5:47, 4:60].ravel(), t[0, 5:47, 4:60].ravel()
        valid = (t > 1e-3) & (t < 10)
        expected.append(plain_depth_scores(p[valid].clip(1e-3, 10), t[valid]))
    for name in ("rmse", "abs_rel", "sq_rel", "rmse_log", "log10", "silog", "delta1", "bias"):
        mean = np.mean([row[name] for row in expected])
        assert result["overall"][name] == pytest.approx(mean, rel=1e-6)
    assert result["overall"]["count"] == sum(row["count"] for row in expected)
    assert result["readout"]["mean"]["overall"] == result["overall"]
    pooled = result["all_pixels"]["overall"]["rmse"]
    errors = [row["mse"] * row["count"] for row in expected]
    assert pooled == pytest.approx((sum(errors) / result["overall"]["count"]) ** 0.5)
    words = result["protocol"]["averaging"]
    assert words.startswith("overall, many, medium, few: mean over images")


def test_near_depths_count_in_overall_and_in_no_shot(rule):
    target = torch.full((1, 1, 48, 64), 0.3)
    scores = eigen_scores(rule)
    scores.update({"raw": target * 2}, target, rule.counts(target))
    result = scores.compute()
    assert result["overall"]["abs_rel"] == pytest.approx(1.0)
    assert [result[shot]["count"] for shot in ("many", "medium", "few")] == [0, 0, 0]
    assert result["bins"][3]["count"] == result["overall"]["count"] == 42 * 56


def test_an_infinite_prediction_is_not_hidden_by_the_clamp(rule):
    target = torch.full((1, 1, 48, 64), 3.0)
    with pytest.raises(DataError, match="not finite"):
        eigen_scores(rule).update({"raw": rule.scored(target * float("inf"))}, target, target > 0)


# sizes of KITTI's cameras; rows and columns as published code computes them there
GARG = {(375, 1242): (153, 371, 44, 1197), (370, 1226): (151, 366, 44, 1181)}
GARG |= {(376, 1241): (153, 372, 44, 1196), (352, 1216): (143, 349, 43, 1172)}
EIGEN = {(375, 1242): (124, 342, 44, 1197), (352, 1216): (117, 321, 43, 1172)}
# the same shares of the benchmark's 352 x 1216, which lies below and in the middle
KB = {(375, 1242): (23, 375, 13, 1229), (352, 1216): (0, 352, 0, 1216)}
KB_GARG = {(375, 1242): (23 + 143, 23 + 349, 13 + 43, 13 + 1172), (352, 1216): GARG[352, 1216]}
KB_EIGEN = {(375, 1242): (23 + 117, 23 + 321, 13 + 43, 13 + 1172), (352, 1216): EIGEN[352, 1216]}
BOXES = {"kitti-garg": GARG, "kitti-eigen": EIGEN}
BOXES |= {"kb": KB, "kb-garg": KB_GARG, "kb-eigen": KB_EIGEN}


@pytest.mark.parametrize(("crop", "boxes"), BOXES.items())
def test_kittis_crops_are_the_published_ones_at_every_size(crop, boxes):
    for size, (top, bottom, left, right) in boxes.items():
        assert eigen_crop(*size, crop) == (slice(top, bottom), slice(left, right))


def test_the_benchmarks_crop_of_a_smaller_picture_is_an_error_that_names_both():
    with pytest.raises(DataError, match="at least 352 x 1216, this one is 192 x 640"):
        eigen_crop(192, 640, "kb-garg")


def test_means_over_images_leave_out_images_with_fewer_than_ten_pixels(rule):
    target = torch.zeros(2, 1, 48, 64)
    target[0, 0, 20, 10:19] = target[1, 0, 20, 10:20] = 3.0
    assert rule.counts(target).sum((1, 2, 3)).tolist() == [0, 10]
    scores = eigen_scores(rule)
    scores.update({"raw": target + 1}, target, rule.counts(target))
    assert scores.compute()["overall"]["images"] == 1
    assert scores.compute()["protocol"]["min_pixels_of_an_image"] == 10


def test_a_protocol_of_other_depths_is_refused_in_one_line_that_names_the_right_one(rule):
    street = SimpleNamespace(bins=lambda: DepthBins.uniform(1.0, 80.0))
    with pytest.raises(ConfigError, match=r"eigen is of depths to 10 m, these .* kitti or whole"):
        DepthProtocol("eigen", street)
    nyu = SimpleNamespace(bins=DepthBins.nyud2)
    with pytest.raises(ConfigError, match=r"kitti is of depths to 80 m, .* eigen or whole"):
        DepthProtocol("kitti", nyu)
    assert DepthProtocol("eigen", street, cap=(1, 80)).cap == (1, 80)  # what is meant is said
    kitti = DepthProtocol("kitti", street)
    target = torch.full((1, 1, 375, 1242), 50.0)
    assert kitti.counts(target).sum() == (371 - 153) * (1197 - 44)
    assert kitti.scored(target * 2).max() == 80


@pytest.mark.parametrize(("size", "said"), [((640, 480), 1), ((64, 256), 1), ((427, 561), 0)])
def test_a_crop_on_pictures_of_another_shape_is_said(recwarn, size, said):
    rooms = SimpleNamespace(bins=lambda: DepthBins.uniform(1.0, 10.0))
    DepthProtocol("eigen", rooms).counts(torch.full((1, 1, *size), 5.0))
    assert sum("--protocol whole counts all" in str(one.message) for one in recwarn) == said


# ---- alignment to the truth ----

TRUTH = np.random.default_rng(0).uniform(0.7, 10.0, (7, 9)).astype(np.float32)


@pytest.mark.parametrize("how", ["median", "depth", "inverse"])
def test_alignments_agree_with_plain_numpy_over_the_pixels_that_count(how):
    noise = np.random.default_rng(1).normal(0, 0.3, TRUTH.shape)
    preds = (0.8 * TRUTH + 1.5 + noise).astype(np.float32)
    preds[0, 0], preds[1, 1] = np.nan, -1.0
    mask = TRUTH < 8.0
    used = mask & np.isfinite(preds) & (preds > 0)
    expected = plain_align(preds, TRUTH, mask, how)
    np.testing.assert_allclose(align(preds, TRUTH, mask, how)[used], expected[used], rtol=1e-5)


def test_inverse_depth_beyond_infinity_is_the_farthest_truth():
    preds = 1 / (1 / TRUTH + 0.3)
    preds[0, 0], mask = 1e6, TRUTH < 8.0  # fitted: 1 / 1e6 - 0.3
    mask[0, 0] = False
    assert align(preds, TRUTH, mask, "inverse")[0, 0] == pytest.approx(TRUTH[mask].max())


@pytest.mark.parametrize("how", ["median", "depth", "inverse"])
def test_a_constant_prediction_is_scaled_alone(how):
    aligned = align(np.full_like(TRUTH, 3.0), TRUTH, TRUTH > 0, how)
    assert np.isfinite(aligned).all()
    assert np.ptp(aligned) == 0
