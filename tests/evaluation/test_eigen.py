import json

import numpy as np
import pytest
import torch

from depthbal.errors import ConfigError, DataError
from depthbal.evaluation import DepthBins, EigenEvaluation, LabelBins, eigen_crop
from tests.reference import plain_depth_scores


def test_the_crop_scales_with_the_image():
    assert eigen_crop(480, 640) == (slice(45, 471), slice(41, 601))
    assert eigen_crop(960, 1280) == (slice(90, 942), slice(82, 1202))


def test_numbers_are_means_over_images_of_clamped_predictions_in_the_crop():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(3, 1, 48, 64, generator=generator) * 11 - 0.5
    preds = target + torch.randn(target.shape, generator=generator) * 3
    mask = target > 0
    evaluation = EigenEvaluation(DepthBins.nyud2(), readouts=("raw", "mean"), main="raw")
    evaluation.update({"raw": preds[:2], "mean": preds[:2]}, target[:2], mask[:2])
    evaluation.update({"raw": preds[2:], "mean": preds[2:]}, target[2:], mask[2:])
    result = evaluation.result()
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
    assert result["protocol"]["averaging"].startswith(
        "overall, many, medium, few: mean over images"
    )
    json.dumps(result, allow_nan=False)


def test_near_depths_count_in_overall_and_in_no_shot():
    target = torch.full((1, 1, 48, 64), 0.3)
    evaluation = EigenEvaluation(DepthBins.nyud2(), readouts=("raw",), main="raw")
    evaluation.update({"raw": target * 2}, target, target > 0)
    result = evaluation.result()
    assert result["overall"]["abs_rel"] == pytest.approx(1.0)
    assert [result[shot]["count"] for shot in ("many", "medium", "few")] == [0, 0, 0]
    assert result["bins"][3]["count"] == result["overall"]["count"] == 42 * 56


def test_an_infinite_prediction_is_not_hidden_by_the_clamp():
    target = torch.full((1, 1, 48, 64), 3.0)
    evaluation = EigenEvaluation(DepthBins.nyud2(), readouts=("raw",), main="raw")
    with pytest.raises(DataError, match="not finite"):
        evaluation.update({"raw": target * float("inf")}, target, target > 0)


def test_bins_that_leave_out_near_depths_are_refused():
    with pytest.raises(ConfigError, match=r"start at 0\.7"):
        EigenEvaluation(LabelBins([0.7, 5.0, 10.0], ["many", "few"]))
