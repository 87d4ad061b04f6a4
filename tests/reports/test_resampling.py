import numpy as np
import pytest
from scipy import stats

from depthbal.evaluation import LabelBins
from depthbal.reports import compare
from depthbal.reports.resampling import (
    expanded_quantile,
    percentile_interval,
    resampled_sums,
    seed_weights,
    simultaneous_band,
    units_of,
)
from tests.reports.made import result_of


def image_weights(units, resamples=400, seed=0):
    """Return how often every image occurs in each resample, (resamples, images)."""
    return resampled_sums([np.eye(len(units.of_image))], units, resamples, seed)[0][1:]


def test_scenes_are_drawn_whole():
    groups = ["a"] * 3 + ["b"] * 2 + ["a"] + ["c"]
    weights = image_weights(units_of(groups), 20000)
    for name in "abc":
        images = [i for i, group in enumerate(groups) if group == name]
        assert (weights[:, images] == weights[:, images[:1]]).all()
    assert (weights[:, [0, 3, 6]].sum(1) == 3).all()  # as many scenes as there are
    assert weights.mean(0) == pytest.approx(np.ones(7), abs=0.05)  # 0.05 is more than 4 sd
    # a scene is in a resample as often as a binomial number says: variance 1 - 1 / n
    assert weights.var(0) == pytest.approx(np.full(7, 2 / 3), rel=0.05)


def test_unknown_scenes_become_blocks_of_16_consecutive_images():
    units = units_of([""] * 333)
    assert units.count == 21
    assert units.of_image.tolist() == [i // 16 for i in range(333)]
    assert "21 blocks of 16 consecutive images" in units.text
    assert units_of(["the test set"] * 320).count == 20  # one scene for all is no scene
    assert [units_of([""] * n).text for n in (15, 1)] == ["15 test images", "1 test image"]
    units = units_of(["x", "", "x", "", "y"] * 64)  # known ones stand beside blocks
    assert units.text == "2 test scenes and 8 blocks of 16 consecutive images"
    assert len({units.of_image[i] for i in range(320) if i % 5 in (0, 2)}) == 1


def test_resampled_sums_are_those_of_the_repeated_images_and_the_first_those_of_all():
    rng = np.random.default_rng(3)
    units = units_of([str(i // 3) for i in range(31)])
    arrays = [rng.normal(size=(31, 4, 2)), rng.normal(size=(31, 5))]
    found = resampled_sums(arrays, units, 130, seed=7)
    for array, out in zip(arrays, found, strict=True):
        assert out[0] == pytest.approx(array.sum(0), abs=1e-12)
        for r, counts in enumerate(image_weights(units, 130, seed=7), start=1):
            repeated = np.repeat(np.arange(31), counts.astype(int))
            assert out[r] == pytest.approx(array[repeated].sum(0), abs=1e-12)
    assert not np.array_equal(image_weights(units, 100, 5), image_weights(units, 100, 6))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_mean_over_seeds_follows_students_t(count):
    values = np.random.default_rng(count).normal(2.0, 0.3, count)
    drawn = seed_weights(list(range(count)), 50000, seed=1) @ values
    assert drawn[0] == pytest.approx(values.mean())
    t = (drawn[1:] - values.mean()) / (values.std(ddof=1) / np.sqrt(count))
    assert stats.kstest(t, stats.t(count - 1).cdf).statistic < 0.008  # 5 % point: 0.0061


def test_the_interval_of_normal_resamples_is_students():
    drawn = stats.norm(1.0, 2.0).ppf((np.arange(100000) + 0.5) / 100000)
    low, high = percentile_interval(drawn, 12)
    wide = 2.0 * stats.t.ppf(0.975, 11) * np.sqrt(12 / 11)
    assert (low, high) == pytest.approx((1.0 - wide, 1.0 + wide), abs=0.01)
    assert expanded_quantile(10**6) == pytest.approx(stats.norm.ppf(0.975), abs=1e-5)


def test_a_number_that_many_resamples_lack_has_no_interval():
    drawn = np.where(np.arange(1000) < 60, np.nan, 1.0)
    assert percentile_interval(drawn, 100) is None
    drawn[:20] = 1.0
    assert percentile_interval(drawn, 100) == (1.0, 1.0)


def test_the_band_of_independent_normal_bins_is_sidaks():
    drawn = np.random.default_rng(0).normal(0, [1.0, 5.0, 0.1, 2.0], (200000, 4))
    low, high = simultaneous_band(np.zeros(4), drawn, np.array([True] * 3 + [False]), 10**6)
    wide = stats.norm.ppf((1 + 0.95 ** (1 / 3)) / 2)
    assert high[:3] == pytest.approx(wide * np.array([1.0, 5.0, 0.1]), rel=0.02)
    assert low[:3] == pytest.approx(-high[:3])
    assert np.isnan([low[3], high[3]]).all()
    drawn[:, 0] = 0  # a bin that never varies has a band without width
    low, high = simultaneous_band(np.zeros(4), drawn[:500], np.ones(4, bool), 100)
    assert (low[0], high[0]) == (0, 0)
    assert high[1] > 1.9


# ---- what the page claims ----

BINS = 8
TRUTH = np.linspace(-0.5, 0.5, BINS)  # true difference per bin; its mean over bins is 0


def found_in(trial, scenes, per_scene, scene_sd, seeds, seed_sd):
    """Draw a test set and networks; return whether interval and band hold the truth."""
    rng = np.random.default_rng([scenes, trial])
    images = scenes * per_scene
    pixels = rng.poisson(5, (images, BINS)) * (rng.random((images, BINS)) < 0.6)
    pixels[0] += 1
    of_scene = rng.normal(0, scene_sd, (scenes, BINS)) + rng.normal(0, scene_sd, (scenes, 1))
    sums = [np.stack([pixels, 3.0 * pixels], -1)]
    for _ in range(seeds):
        error = 3 + TRUTH + rng.normal(0, seed_sd) + np.repeat(of_scene, per_scene, 0)
        sums.append(np.stack([pixels, pixels * (error + rng.normal(0, 0.3, pixels.shape))], -1))
    bins, groups = LabelBins(np.arange(BINS + 1.0)), [str(i // per_scene) for i in range(images)]
    methods = ["first", *["second"] * seeds]
    runs = [
        result_of(s, bins, name=str(i), method=methods[i], seed=i, groups=groups)
        for i, s in enumerate(sums)
    ]
    (pair,) = compare(runs, 600, trial).pairs
    found, band = pair.differences["loss", "overall", "bins"], pair.bands["loss", 0]
    inside = ~(band["low"] > TRUTH) & ~(band["high"] < TRUTH)  # bins of few images have none
    return found.low <= TRUTH.mean() <= found.high, inside.all()


@pytest.mark.parametrize(
    ("scenes", "per_scene", "scene_sd", "seeds", "seed_sd"),
    [(120, 1, 0.3, 1, 0.0), (20, 6, 0.3, 1, 0.0), (40, 3, 0.3, 1, 0.0), (40, 1, 0.1, 3, 0.3)],
    ids=["single images", "few large scenes", "scenes", "three seeds that differ"],
)
def test_intervals_and_bands_hold_the_truth_about_as_often_as_they_say(
    scenes, per_scene, scene_sd, seeds, seed_sd
):
    trials = 120
    found = [found_in(i, scenes, per_scene, scene_sd, seeds, seed_sd) for i in range(trials)]
    interval, band = np.mean(found, axis=0)
    assert 0.90 < interval <= 0.995  # 0.95 of 120 trials has a standard deviation of 0.02
    assert band > 0.90
