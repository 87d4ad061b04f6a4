"""Made-up depths and ages, and comparisons with the plain loops of tests/reference.py."""

import numpy as np
import pytest
import torch

from depthbal.evaluation import GROUPS, LABEL_TERMS, TERMS, DepthBins, Label, LabelBins, Scores
from depthbal.evaluation import metrics_of as metrics_of_terms
from tests.reference import plain_evaluation

BINS = DepthBins.nyud2()
AGES = LabelBins.from_counts(
    np.arange(122), np.r_[np.full(40, 150), np.full(40, 50), np.full(41, 5)], 100, 20
)
YEARS = Label("age", "years")
DEPTH_METRICS = metrics_of_terms(TERMS)
LABEL_METRICS = metrics_of_terms(LABEL_TERMS)


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


def share_of(mask, share=0.3, seed=9):
    """A random subset of pixels, as the balanced mask is one."""
    return torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)) < share


def ages(seed=0, samples=400):
    """Ages, some of them predicted exactly."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, 100, (samples,), generator=generator).float()
    preds = target + torch.randn(samples, generator=generator) * 9
    preds[::50] = target[::50]
    return preds, target


def raw_scores(bins=BINS, **options) -> Scores:
    """Scores of one read-out."""
    return Scores(bins, ("raw",), "raw", **options)


def sums_of(preds, target, mask, bins, terms=TERMS):
    """The sums (images, bins, terms) of one read-out."""
    scores = raw_scores(bins, terms=terms)
    scores.update({"raw": preds}, target, mask)
    return scores.sums()


def age_scores(readouts=("raw",), main="raw", **options) -> Scores:
    """Scores of ages."""
    about = {"terms": LABEL_TERMS, "label": YEARS, "main_metric": "mae", **options}
    return Scores(AGES, readouts, main, **about)


def assert_equal(found, expected, keys=None):
    """Compare two dictionaries of numbers to 1e-9."""
    for key in keys or expected:
        if expected[key] is None:
            assert found[key] is None, key
        else:
            assert found[key] == pytest.approx(expected[key], rel=1e-9, abs=1e-9), key


def assert_matches_plain(result, preds, target, mask):
    """Compare every group, average and bin with plain loops."""
    plain = plain_evaluation(preds.float().numpy(), target.numpy(), mask.numpy(), list(BINS.shots))
    for group in GROUPS:
        assert_equal(result[group], plain[group])
        for mean in ("per_image_mean", "per_bin_mean"):
            assert_equal(result[mean][group], plain[mean][group], DEPTH_METRICS)
    assert [row["bin"] for row in result["bins"]] == list(plain["bins"])
    for row in result["bins"]:
        assert_equal(row, plain["bins"][row["bin"]])


def assert_same(found, expected):
    """Compare two results in everything, numbers to 1e-9: sums add up in another order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
    if isinstance(expected, dict | list):
        for key in expected if isinstance(expected, dict) else range(len(expected)):
            assert_same(found[key], expected[key])
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    else:
        assert found == expected
