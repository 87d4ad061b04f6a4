import numpy as np
import pytest

from depthbal.evaluation import LabelBins, choose_examples

BINS = LabelBins([0, 1, 2, 3], ["many", "medium", "few"])
TERMS = ("count", "squared")


def sums_of(rmse, few):
    """Images of 1000 pixels with this RMSE, this many of them few-shot."""
    few = np.asarray(few)
    counts = np.stack([1000 - few, np.zeros_like(few), few], 1).astype(float)
    return np.stack([counts, counts * np.asarray(rmse, float)[:, None] ** 2], 2)


def by_reason(examples):
    found = {}
    for example in examples:
        found.setdefault(example.reason, []).append(example.index)
    return found


def test_six_of_each_reason_without_duplicates():
    rng = np.random.default_rng(0)
    rmse, few = rng.permutation(100) / 10, rng.permutation(100)
    examples = choose_examples(sums_of(rmse, few), BINS, TERMS)
    found = by_reason(examples)
    assert {reason: len(indices) for reason, indices in found.items()} == {
        "best": 6,
        "median": 6,
        "worst": 6,
        "rare": 6,
    }
    assert len({example.index for example in examples}) == 24
    assert found["rare"] == np.argsort(-few)[:6].tolist()
    others = [i for i in np.argsort(rmse).tolist() if i not in found["rare"]]
    assert found["best"] == others[:6]
    assert found["worst"] == others[::-1][:6]
    middle = [others.index(i) for i in found["median"]]
    assert np.mean(middle) == pytest.approx((len(others) - 1) / 2, abs=0.5)
    assert [e.rmse for e in examples] == pytest.approx([rmse[e.index] for e in examples])


@pytest.mark.parametrize("images", range(1, 26))
def test_few_images_give_few_examples(images):
    rng = np.random.default_rng(images)
    sums = sums_of(rng.random(images), rng.integers(1, 900, images))
    found = [example.index for example in choose_examples(sums, BINS, TERMS)]
    assert len(set(found)) == len(found)
    assert len(found) == min(images, 24)


def test_images_without_a_scored_pixel_are_not_shown():
    sums = sums_of(np.arange(8.0), np.zeros(8, int))
    sums[3] = 0
    found = by_reason(choose_examples(sums, BINS, TERMS))
    assert "rare" not in found
    assert 3 not in {index for indices in found.values() for index in indices}
    assert choose_examples(np.zeros((2, 3, 2)), BINS, TERMS) == []


def test_unscored_bins_count_for_nothing():
    bins = LabelBins([0, 1, 2, 3], [None, "many", "few"])
    sums = sums_of(np.ones(3), np.array([10, 20, 0]))
    sums[:, 0, 1] = 1e9
    assert {example.rmse for example in choose_examples(sums, bins, TERMS)} == {1.0}
