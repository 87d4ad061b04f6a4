"""Eigen's protocol: a crop of the whole image, clamped predictions, means over images."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from depthbal.errors import DataError
from depthbal.evaluation import DepthBins, eigen_mask
from depthbal.evaluation.protocols import DepthProtocol
from tests.reference import plain_depth_scores


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
    for name in ("rmse", "abs_rel", "log10", "silog", "delta1", "bias"):
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
    scores.update({"raw": target * 2}, target, eigen_mask(target))
    result = scores.compute()
    assert result["overall"]["abs_rel"] == pytest.approx(1.0)
    assert [result[shot]["count"] for shot in ("many", "medium", "few")] == [0, 0, 0]
    assert result["bins"][3]["count"] == result["overall"]["count"] == 42 * 56


def test_an_infinite_prediction_is_not_hidden_by_the_clamp(rule):
    target = torch.full((1, 1, 48, 64), 3.0)
    with pytest.raises(DataError, match="not finite"):
        eigen_scores(rule).update({"raw": rule.scored(target * float("inf"))}, target, target > 0)
