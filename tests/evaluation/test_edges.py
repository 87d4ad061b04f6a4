"""Boundary F1 and flying pixels are those of plain loops, and say what they are called after."""

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from depthbal.evaluation import EDGE_TERMS, TERMS, DepthBins, Scores
from tests.reference import plain_boundary_f1, plain_edges

BINS = DepthBins(np.arange(0.0, 11.0), ["many"] * 4 + ["medium"] * 3 + ["few"] * 3)


def rooms(seed, images=3, size=(23, 31)):
    """Boxes before a slanted wall: steps of every strength, some holes."""
    draw = np.random.default_rng(seed)
    target = np.tile(np.linspace(4, 7, size[1]), (images, 1, size[0], 1))
    for image in target:
        for _ in range(6):
            top, left = draw.integers(0, size[0] - 6), draw.integers(0, size[1] - 6)
            height, width = draw.integers(3, 9, 2)
            image[0, top : top + height, left : left + width] *= draw.uniform(0.4, 0.97)
    target[draw.random(target.shape) < 0.01] = 0
    return torch.from_numpy(target).float()


def scored(preds, target, mask=None, subsets=None):
    mask = target > 0 if mask is None else mask
    options = {"terms": (*TERMS, *EDGE_TERMS), "subsets": tuple(subsets or ())}
    scores = Scores(BINS, ("raw",), "raw", **options)
    scores.update({"raw": preds}, target, mask, subsets=subsets)
    return scores


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_numbers_per_bin_image_and_group_equal_plain_loops(dtype):
    target = rooms(0)
    preds = avg_pool2d(target.clamp(min=1), 3, 1, 1) * (1 + 0.03 * torch.randn(target.shape))
    preds[0, 0, 4, 4] = -1.0
    mask = target > 0
    mask[1, 0, :, 20:] = False
    preds = preds.to(dtype)
    result = scored(preds, target, mask).compute()
    every = {}
    for i, arrays in enumerate(zip(preds.double(), target.double(), mask, strict=True)):
        for place, found in plain_edges(*(array[0].numpy() for array in arrays)).items():
            every[i, *place] = found
    assert sum(strong for _, strong, _ in every.values()) > 100

    def check(row, keep):
        chosen = [one for key, one in every.items() if keep(key, int(target[key[0], 0, *key[1:]]))]
        expected = plain_boundary_f1([counts for counts, *_ in chosen])
        assert row["boundary_f1"] == (None if expected is None else pytest.approx(expected))
        strong, flying = (sum(one[k] for one in chosen) for k in (1, 2))
        assert row["flying"] == (pytest.approx(flying / strong) if strong else None)

    check(result["overall"], lambda key, depth: True)
    check(result["many"], lambda key, depth: depth < 4)
    for row in result["bins"]:
        check(row, lambda key, depth, b=row["bin"]: depth == b)
    rows = [scored(preds[[i]], target[[i]], mask[[i]]).compute()["overall"] for i in range(3)]
    mean = np.mean([row["boundary_f1"] for row in rows])
    assert result["per_image_mean"]["overall"]["boundary_f1"] == pytest.approx(mean)
    known = [row["flying"] for row in result["bins"] if row["flying"] is not None]
    assert result["per_bin_mean"]["overall"]["flying"] == pytest.approx(np.mean(known))


def test_true_edges_score_one_and_blurred_ones_less_with_pixels_that_fly():
    target = rooms(1)
    sharp = scored(target * 1.3, target).compute()["overall"]  # a factor moves no edge
    assert sharp["boundary_f1"] == 1
    assert scored(target, target).compute()["overall"]["flying"] == 0
    blurred = scored(avg_pool2d(target, 3, 1, 1), target).compute()["overall"]
    assert blurred["boundary_f1"] < 0.8
    assert blurred["flying"] > 0.2
    flat = torch.full_like(target, 3.0)
    none = scored(flat, flat).compute()["overall"]
    assert (none["boundary_f1"], none["flying"]) == (None, None)
    assert scored(flat, target).compute()["overall"]["boundary_f1"] == 0


def test_a_subset_of_pixels_keeps_its_neighbours_and_other_metrics_their_values():
    target = rooms(2)
    preds = avg_pool2d(target, 3, 1, 1) + 0.01
    inside = torch.rand(target.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    whole = scored(preds, target).sums()
    parts = [scored(preds, target, subsets={"mask": one}).sums("mask") for one in (inside, ~inside)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-12, atol=1e-12)
    plain = Scores(BINS, ("raw",), "raw")
    plain.update({"raw": preds}, target, target > 0)
    assert np.array_equal(whole[..., : len(TERMS)], plain.sums())
