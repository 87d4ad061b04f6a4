"""Weights by the rarity of the label, and the errors they weigh."""

import math

import numpy as np
import pytest
import torch

from depthbal.losses import ReweightedLoss, label_weights
from depthbal.priors import Histogram
from depthbal.priors.histogram import bin_per_label
from tests.reference import plain_label_weights

COUNTS = [40.0, 90.0, 17.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 8.0]
KERNELS = {
    "gaussian": [math.exp(-(k**2) / 8) for k in range(-2, 3)],
    "triangular": [1.0, 2.0, 3.0, 2.0, 1.0],
    "laplace": [math.exp(-abs(k) / 2) for k in range(-2, 3)],
}


def histogram(counts=COUNTS) -> Histogram:
    return Histogram(np.arange(len(counts) + 1.0), counts)


@pytest.mark.parametrize("weighting", ["inverse", "sqrt_inverse"])
@pytest.mark.parametrize("clip", [None, (5.0, 50.0)])
@pytest.mark.parametrize("smoothing", [None, *KERNELS])
def test_equals_plain_loops_and_averages_1_over_the_training_labels(weighting, clip, smoothing):
    weights = label_weights(histogram(), weighting, clip=clip, smoothing=smoothing)
    kernel = KERNELS.get(smoothing)
    scaled = None if kernel is None else [k / sum(kernel) for k in kernel]
    expected = plain_label_weights(COUNTS, weighting, clip, scaled)
    np.testing.assert_allclose(weights, expected, rtol=1e-12)
    assert np.average(weights, weights=COUNTS) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("counts", [COUNTS, [0, 5, 0], [1e9, 0, 1], [2.5e-300, 0, 1e-300]])
def test_empty_bins_weigh_as_much_as_the_rarest_and_never_infinitely(counts):
    counts = np.array(counts, dtype=float)
    weights = label_weights(histogram(counts))
    assert np.isfinite(weights).all()
    assert (weights > 0).all()
    assert set(weights[counts == 0]) == {weights[counts > 0].max()}


@pytest.mark.parametrize("kind", list(KERNELS))
@pytest.mark.parametrize("size", [1, 5, 31])
def test_smoothing_leaves_a_uniform_histogram_unweighted(kind, size):
    """Mirrored ends: padding with zeros would make the end bins look rare."""
    weights = label_weights(histogram([7.0] * 9), smoothing=kind, kernel_size=size)
    np.testing.assert_allclose(weights, np.ones(9), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.filterwarnings("ignore:.*outside the histogram")
def test_labels_are_looked_up_in_the_bin_that_counted_them(dtype):
    """Every label of 8-bit depth, every edge and their neighbours, against Histogram.update."""
    edges = np.linspace(0.7, 10.0, 94)
    rounded = torch.from_numpy(edges).to(dtype)
    infinity = torch.tensor(torch.inf, dtype=dtype)
    beside = [torch.nextafter(rounded, end) for end in (infinity, -infinity)]
    labels = torch.cat([(torch.arange(256) / 255 * 10).to(dtype), rounded, *beside])
    for label, found in zip(labels, bin_per_label(labels, torch.from_numpy(edges)), strict=True):
        assert Histogram(edges).update(label).counts[found] == 1


@pytest.mark.parametrize("error", ["squared", "absolute"])
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_errors_are_weighted_as_in_plain_python(error, dtype, rtol):
    generator = torch.Generator().manual_seed(0)
    preds, target = 13 * torch.rand(2, 3, 7, 5, generator=generator, dtype=torch.float64) - 0.5
    preds, target = preds.to(dtype), target.to(dtype)
    mask = torch.rand(target.shape, generator=generator) < 0.6
    scaled = [k / sum(KERNELS["gaussian"]) for k in KERNELS["gaussian"]]
    weights = plain_label_weights(COUNTS, "sqrt_inverse", None, scaled)
    total = 0.0
    for p, t in zip(preds[mask].tolist(), target[mask].tolist(), strict=True):
        weight = weights[min(max(int(np.floor(t)), 0), 11)]
        total += weight * (abs(p - t) if error == "absolute" else (p - t) ** 2)
    options = {"error": error, "weighting": "sqrt_inverse", "smoothing": "gaussian"}
    value = ReweightedLoss(histogram(), **options)(preds, target, mask)
    assert value.dtype == dtype
    assert value.item() == pytest.approx(total / int(mask.sum()), rel=rtol)
