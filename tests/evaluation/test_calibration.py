import json
import math

import numpy as np
import pytest
import torch

from depthbal.errors import DataError
from depthbal.evaluation import DepthBins, Evaluation, LabelBins, coverage_counts
from tests.evaluation.test_metrics import batch

BINS = DepthBins.nyud2()
GROUPS = ("overall", "many", "medium", "few")


def test_coverage_per_group_on_mask_and_all_equals_numpy():
    preds, target, mask = batch(images=4)
    generator = torch.Generator().manual_seed(1)
    lower, upper = preds - torch.rand(preds.shape, generator=generator), preds + 0.4
    balanced = torch.rand(mask.shape, generator=generator) < 0.3
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    for part in (slice(0, 1), slice(1, 4)):
        evaluation.update(
            {"raw": preds[part]},
            target[part],
            mask[part],
            balanced[part],
            interval=(lower[part], upper[part]),
        )
    found = evaluation.result()["calibration"]
    json.dumps(found, allow_nan=False)
    shots = np.array([BINS.shots[b] or "" for b in range(100)])
    shot = shots[np.minimum((target.numpy() * np.float32(10)).astype(int), 99)]
    inside = (lower.numpy() <= target.numpy()) & (target.numpy() <= upper.numpy())
    for subset, counted in (("mask", mask & balanced), ("all", mask)):
        for group in GROUPS:
            of_group = counted.numpy() & (shot != "" if group == "overall" else shot == group)
            assert found[subset][group]["count"] == of_group.sum() > 0
            expected = inside[of_group].mean()
            assert found[subset][group]["coverage"] == pytest.approx(expected, abs=1e-12)
        pairs = evaluation.per_image()[f"coverage_{subset}"]
        assert pairs.shape == (100, 2)
        assert pairs.sum(0).tolist() == [inside[counted.numpy()].sum(), counted.sum()]


def test_a_true_sigma_covers_its_nominal_share_and_half_of_it_less():
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(1, 1, 100, 100, generator=generator) * 8 + 1
    preds = target + torch.randn(target.shape, generator=generator)
    coverage = {}
    for sigma in (0.5, 1.0):
        evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
        evaluation.update({"raw": preds}, target, interval=(preds - sigma, preds + sigma))
        coverage[sigma] = evaluation.result()["calibration"]["all"]["overall"]["coverage"]
    for sigma, found in coverage.items():
        assert found == pytest.approx(math.erf(sigma / math.sqrt(2)), abs=0.025)


def test_without_intervals_there_is_no_calibration_and_no_array():
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    target = torch.full((1, 1, 2, 2), 3.0)
    evaluation.update({"raw": target}, target)
    assert evaluation.result()["calibration"] is None
    assert not [name for name in evaluation.per_image() if name.startswith("coverage")]


def test_an_empty_group_is_a_labelled_gap_and_the_level_is_named():
    evaluation = Evaluation(BINS, readouts=("raw",), main="raw")
    target = torch.full((1, 1, 2, 2), 3.0)
    evaluation.update({"raw": target}, target, interval=(target, target))
    found = evaluation.result()["calibration"]
    assert found["level"] == 0.6827
    assert "truncated to the label range" in found["interval"]
    assert found["all"]["few"] == {"coverage": None, "count": 0}
    assert found["all"]["many"] == {"coverage": 1.0, "count": 4}
    assert "mask" not in found


def test_the_ends_belong_to_the_interval():
    target, index = torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3, dtype=torch.long)
    found = coverage_counts(target.clone(), target.clone(), target, index, 2)
    assert found.tolist() == [[3.0, 3.0], [0.0, 0.0]]


def test_intervals_for_some_batches_only_or_of_nan_are_refused():
    bins = LabelBins([0, 10], ["many"])
    target = torch.tensor([3.0, 4.0])
    evaluation = Evaluation(bins, readouts=("raw",), main="raw")
    evaluation.update({"raw": target}, target, interval=(target - 1, target + 1))
    with pytest.raises(DataError, match="intervals for every batch"):
        evaluation.update({"raw": target}, target)
    with pytest.raises(DataError, match="not finite"):
        evaluation.update({"raw": target}, target, interval=(target / 0 - target / 0, target))
