"""Alignment to the truth: each undoes exactly the change that it is for."""

import numpy as np
import pytest

from depthbal.evaluation.alignment import align
from tests.reference import plain_align

TRUTH = np.random.default_rng(0).uniform(0.7, 10.0, (7, 9)).astype(np.float32)


@pytest.mark.parametrize(
    ("how", "preds"),
    [
        ("median", 1.7 * TRUTH),
        ("depth", 0.4 * TRUTH + 2.0),
        ("inverse", 1 / (0.6 / TRUTH + 0.05)),
    ],
)
def test_an_alignment_undoes_what_it_fits(how, preds):
    mask = TRUTH > 1.0
    np.testing.assert_allclose(align(preds, TRUTH, mask, how), TRUTH, rtol=1e-4)
    assert align(preds, TRUTH, mask, "none") is preds


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
