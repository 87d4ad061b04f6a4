import numpy as np
import pytest
import torch
from scipy.stats import gmean

from depthbal.errors import DataError
from depthbal.evaluation import (
    DEPTH_METRICS,
    LABEL_METRICS,
    LABEL_TERMS,
    BinnedMetrics,
    LabelBins,
    binned_sums,
    metrics_of,
    summarise,
)
from tests.evaluation.test_metrics import assert_equal
from tests.reference import plain_label_scores

COUNTS = np.r_[np.full(40, 150), np.full(40, 50), np.full(41, 5)]
AGES = LabelBins.from_counts(np.arange(122), COUNTS, many_above=100, few_below=20)


def ages(seed=0, samples=400):
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 100, (samples,), generator=generator).float()
    preds = target + torch.randn(samples, generator=generator) * 9
    preds[::50] = target[::50]  # exact predictions
    return preds, target


def test_all_metrics_of_ages_equal_an_independent_implementation():
    preds, target = ages()
    metric = BinnedMetrics(AGES)
    metric.update(preds, target)
    result = metric.compute()
    p, t = preds.numpy(), target.numpy()
    shots = {"many": (0, 40), "medium": (40, 80), "few": (80, 121), "overall": (0, 121)}
    for group, (low, high) in shots.items():
        inside = (t >= low) & (t < high)
        assert_equal(result[group], plain_label_scores(p[inside], t[inside]))
        rows = [plain_label_scores(p[t == age], t[t == age]) for age in np.unique(t[inside])]
        for name in LABEL_METRICS:
            mean = np.mean([row[name] for row in rows])
            assert result["per_bin_mean"][group][name] == pytest.approx(mean, rel=1e-9), name
    for row in result["bins"]:
        assert_equal(row, plain_label_scores(p[t == row["bin"]], t[t == row["bin"]]))
    assert {"rmse", "mse", "mae", "gm", "bias"} == set(LABEL_METRICS)


def test_the_geometric_mean_is_scipys_where_no_prediction_is_exact():
    target = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    preds = target + torch.tensor([1.0, -4.0, 0.25], dtype=torch.float64)
    metric = BinnedMetrics(AGES)
    metric.update(preds, target)
    assert metric.compute()["overall"]["gm"] == pytest.approx(gmean([1.0, 4.0, 0.25]), rel=1e-12)


def test_one_exact_prediction_counts_as_a_thousandth_of_a_year():
    target = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    metric = BinnedMetrics(AGES)
    metric.update(target + torch.tensor([0.0, 4.0, 4.0]), target)
    expected = (1e-3 * 16) ** (1 / 3)
    assert metric.compute()["overall"]["gm"] == pytest.approx(expected, rel=1e-12)


def test_a_term_of_no_formula_is_a_metric_its_mean():
    bins = LabelBins([0, 1, 2], ["many", "few"])
    sums = np.array([[[2.0, 30.0], [0.0, 0.0]], [[1.0, 60.0], [1.0, 100.0]]])
    result = summarise(sums, bins, ["count", "mpjpe"])
    assert result["many"]["mpjpe"] == pytest.approx(30.0)
    assert result["overall"]["mpjpe"] == pytest.approx(190 / 4)
    assert result["per_bin_mean"]["overall"]["mpjpe"] == pytest.approx((30 + 100) / 2)
    assert set(result["many"]) == {"mpjpe", "count", "images"}


def test_a_term_that_a_formula_uses_is_not_a_metric_by_itself():
    assert metrics_of(["count", "log_error"]) == ()
    assert "squared" not in metrics_of(LABEL_TERMS)


def test_depth_has_no_geometric_mean():
    assert "gm" not in DEPTH_METRICS


def test_an_unknown_term_is_named():
    with pytest.raises(DataError, match="'cubed'"):
        binned_sums(torch.ones(1, 2), torch.ones(1, 2), None, AGES, ["count", "cubed"])
