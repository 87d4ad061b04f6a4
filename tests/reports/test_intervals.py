import numpy as np
import pytest
from scipy import stats

from depthbal.evaluation import LabelBins
from depthbal.reports.intervals import expanded_quantile, percentile_interval, simultaneous_band
from depthbal.reports.methods import Method
from depthbal.reports.rebinning import union
from depthbal.reports.resampled_numbers import Plan, method_numbers
from depthbal.reports.resampling import units_of
from tests.reports.in_memory import result_of

BINS = 8
TRUTH = np.linspace(-0.5, 0.5, BINS)  # true difference per bin; its mean over bins is 0
OVERALL = ("loss", "overall", "bins")


def found_in(trial: int, scenes: int, per_scene: int, scene_sd: float, seeds: int, seed_sd: float):
    """Draw a test set and networks; return whether interval and band hold the truth."""
    rng = np.random.default_rng([scenes, trial])
    images = scenes * per_scene
    groups = [str(i // per_scene) for i in range(images)]
    pixels = rng.poisson(5, (images, BINS)) * (rng.random((images, BINS)) < 0.6)
    pixels[0] += 1
    of_scene = rng.normal(0, scene_sd, (scenes, BINS)) + rng.normal(0, scene_sd, (scenes, 1))
    sums = [np.stack([pixels, 3.0 * pixels], -1)]
    for _ in range(seeds):
        error = 3 + TRUTH + rng.normal(0, seed_sd) + np.repeat(of_scene, per_scene, 0)
        sums.append(np.stack([pixels, pixels * (error + rng.normal(0, 0.3, pixels.shape))], -1))
    bins = LabelBins(np.arange(BINS + 1.0))
    runs = [result_of(s, bins, name=str(i), groups=groups) for i, s in enumerate(sums)]
    units = units_of(groups)
    plan = Plan(("loss",), (union(runs[0], "fine", np.arange(BINS)),), units, 600, trial)
    first, first_drawn, _ = method_numbers(Method("a", (0,), (0,)), runs, plan)
    several = Method("b", tuple(range(1, seeds + 1)), tuple(range(seeds)))
    second, second_drawn, _ = method_numbers(several, runs, plan)
    drawn = second_drawn.groups[OVERALL] - first_drawn.groups[OVERALL]
    low, high = percentile_interval(drawn, units.count)
    key = ("loss", "fine")
    estimate = second.bins[key][0] - first.bins[key][0]
    drawn_bins = second_drawn.bins[key] - first_drawn.bins[key]
    band = simultaneous_band(estimate, drawn_bins, np.ones(BINS, bool), units.count)
    return low <= TRUTH.mean() <= high, ((band[0] <= TRUTH) & (band[1] >= TRUTH)).all()


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
    # 0.95 of 120 trials has a standard deviation of 0.02; drawing images too makes them wider
    assert 0.90 < interval <= 0.995
    assert band > 0.90


def test_an_interval_over_images_alone_is_far_too_narrow_for_scenes():
    """The reason for resampling scenes: the same numbers, with every image its own scene."""
    rng = np.random.default_rng(0)
    error = np.repeat(rng.normal(0, 1, 30), 20) + rng.normal(0, 0.1, 600)
    sums = np.stack([np.ones(600), error], -1)[:, None]
    widths = []
    for groups in ([str(i // 20) for i in range(600)], [str(i) for i in range(600)]):
        run = result_of(sums, LabelBins([0.0, 1.0]), groups=groups)
        plan = Plan(("loss",), (), units_of(groups), 500, 0)
        drawn = method_numbers(Method("a", (0,), (0,)), [run], plan)[1].groups[OVERALL]
        low, high = percentile_interval(drawn, plan.units.count)
        widths.append(high - low)
    assert widths[0] > 3.5 * widths[1]  # sqrt(20) = 4.5, less what drawing images adds


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
    assert np.isnan(low[3])
    assert np.isnan(high[3])


def test_a_bin_that_never_varies_has_a_band_without_width():
    drawn = np.stack([np.zeros(500), np.random.default_rng(0).normal(size=500)], 1)
    low, high = simultaneous_band(np.zeros(2), drawn, np.ones(2, bool), 100)
    assert (low[0], high[0]) == (0, 0)
    assert high[1] > 1.9
